//! Flows as bytes, for temporary files of this process. What many flows have in common, the steps of their paths, stays
//! in memory, and the bytes have its number: nothing else can read them, and no other process.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Cause, Clash, ConntrackCause, Counting, Details, DropPoint, DroppedAt, Drops, Flow, FlowKey,
    Mark, Origins, Paths, Status, Tuple, ZoneDir,
    counters::Counters,
    hook::Hook,
    intern_name,
    path::{CtState, Direction, Doubt, MarksBehind, Outcome, Step, Traversal},
    process::Process,
    state::ProtoState,
};

/// Writes flows as bytes, and reads them.
#[derive(Debug, Default)]
pub(crate) struct FlowBytes {
    steps: Shared<Step>,
    marks: Shared<MarksBehind>,
}

/// Lists that are kept once, by number.
#[derive(Debug)]
struct Shared<T> {
    values: Vec<Arc<[T]>>,
    by_value: HashMap<Arc<[T]>, u32>,
    /// By the address of a list that is in `values`: hashing a list takes longer.
    by_address: HashMap<usize, u32>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { values: Vec::new(), by_value: HashMap::new(), by_address: HashMap::new() }
    }
}

impl<T: Eq + Hash> Shared<T> {
    fn number(&mut self, list: &Arc<[T]>) -> u32 {
        if let Some(number) = self.by_address.get(&address(list)) {
            return *number;
        }
        if let Some(number) = self.by_value.get(list) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(Arc::clone(list));
        self.by_value.insert(Arc::clone(list), number);
        self.by_address.insert(address(list), number);
        number
    }

    fn get(&self, number: u32) -> Option<&Arc<[T]>> {
        self.values.get(number as usize)
    }
}

fn address<T>(list: &Arc<[T]>) -> usize {
    Arc::as_ptr(list).cast::<T>() as usize
}

/// A flow, but for its paths and drops.
#[derive(Serialize, Deserialize)]
struct Fields {
    key: FlowKey,
    reply: Option<Tuple>,
    parent: Option<Tuple>,
    quotes: Option<Tuple>,
    zone_dir: ZoneDir,
    status: Status,
    state: Option<ProtoState>,
    mark: Option<Mark>,
    packet_mark: Option<Mark>,
    interfaces: Option<(u32, u32)>,
    fits_several: bool,
    resumed: bool,
    timeout: Option<u32>,
    flows: Counting,
    ended: u64,
    unconfirmed: u64,
    counters: Option<[Counters; 2]>,
    first_ns: u64,
    last_ns: u64,
    origins: Origins,
    process: Option<Process>,
    details: Option<Details>,
}

/// A path, with the numbers of what it shares with others, and the packets that took it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct PathFields {
    hook: Hook,
    direction: Direction,
    state: CtState,
    outcome: Outcome,
    epoch: u32,
    packet_mark: (u32, u32),
    marks: u32,
    connmark: Option<(u32, u32)>,
    nat: Option<(Tuple, Tuple)>,
    fragment: bool,
    steps: u32,
    doubt: Option<Doubt>,
    packets: u64,
}

#[derive(Serialize, Deserialize)]
struct DropsFields {
    clash: Option<Clash>,
    at: Vec<DropFields>,
    others: (u64, u64),
}

/// A drop point, the number of a list with the step that dropped packets there, and the packets.
#[derive(Serialize, Deserialize)]
struct DropFields {
    cause: CauseFields,
    hook: Option<u8>,
    iif: u32,
    oif: u32,
    by: Option<u32>,
    packets: u64,
}

#[derive(Serialize, Deserialize)]
enum CauseFields {
    Netfilter,
    Conntrack(ConntrackCause),
    Reason(String),
    Function(String),
}

impl FlowBytes {
    /// Appends a flow.
    pub fn write(&mut self, flow: Flow, out: &mut Vec<u8>) {
        let Flow {
            key,
            reply,
            parent,
            quotes,
            zone_dir,
            status,
            state,
            mark,
            packet_mark,
            interfaces,
            fits_several,
            resumed,
            timeout,
            flows,
            ended,
            unconfirmed,
            counters,
            first_ns,
            last_ns,
            drops,
            paths,
            origins,
            process,
            details,
        } = flow;
        append(
            out,
            &Fields {
                key,
                reply,
                parent: parent.map(|of| *of),
                quotes: quotes.map(|of| *of),
                zone_dir,
                status,
                state,
                mark,
                packet_mark,
                interfaces,
                fits_several,
                resumed,
                timeout,
                flows,
                ended,
                unconfirmed,
                counters,
                first_ns,
                last_ns,
                origins,
                process: process.map(|of| *of),
                details: details.map(|of| *of),
            },
        );
        let paths: Vec<PathFields> =
            paths.shared().map(|(path, packets)| self.path(path, packets)).collect();
        append(out, &paths);
        append(out, &drops.map(|drops| self.drops(&drops)));
    }

    fn path(&mut self, path: &Traversal, packets: u64) -> PathFields {
        let Traversal {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            marks,
            connmark,
            nat,
            fragment,
            steps,
            doubt,
        } = path;
        PathFields {
            hook: *hook,
            direction: *direction,
            state: *state,
            outcome: *outcome,
            epoch: *epoch,
            packet_mark: *packet_mark,
            marks: self.marks.number(marks),
            connmark: *connmark,
            nat: *nat,
            fragment: *fragment,
            steps: self.steps.number(steps),
            doubt: *doubt,
            packets,
        }
    }

    fn drops(&mut self, drops: &Drops) -> DropsFields {
        let at = drops.at().iter().map(|DroppedAt { place, by, packets }| DropFields {
            cause: match place.cause {
                Cause::Netfilter => CauseFields::Netfilter,
                Cause::Conntrack(cause) => CauseFields::Conntrack(cause),
                Cause::Reason(name) => CauseFields::Reason(name.to_owned()),
                Cause::Function(name) => CauseFields::Function(name.to_owned()),
            },
            hook: place.hook,
            iif: place.iif,
            oif: place.oif,
            by: by.as_ref().map(|step| self.steps.number(&Arc::from([step.clone()]))),
            packets: *packets,
        });
        let at = at.collect();
        DropsFields {
            clash: drops.clash(),
            at,
            others: (drops.elsewhere(), drops.lost_elsewhere()),
        }
    }

    /// The key of the flow that stands first.
    pub fn key(bytes: &[u8]) -> Option<FlowKey> {
        postcard::take_from_bytes(bytes).ok().map(|(key, _)| key)
    }

    /// Reads the flow that stands first; `None` if the bytes were not written by [`Self::write`].
    pub fn read(&self, mut bytes: &[u8]) -> Option<Flow> {
        let Fields {
            key,
            reply,
            parent,
            quotes,
            zone_dir,
            status,
            state,
            mark,
            packet_mark,
            interfaces,
            fits_several,
            resumed,
            timeout,
            flows,
            ended,
            unconfirmed,
            counters,
            first_ns,
            last_ns,
            origins,
            process,
            details,
        } = take(&mut bytes)?;
        let mut paths = Paths::default();
        for path in take::<Vec<PathFields>>(&mut bytes)? {
            let packets = path.packets;
            paths.add(&Arc::new(self.traversal(path)?), packets);
        }
        let drops = match take::<Option<DropsFields>>(&mut bytes)? {
            Some(drops) => Some(Box::new(self.read_drops(drops)?)),
            None => None,
        };
        Some(Flow {
            key,
            reply,
            parent: parent.map(Box::new),
            quotes: quotes.map(Box::new),
            zone_dir,
            status,
            state,
            mark,
            packet_mark,
            interfaces,
            fits_several,
            resumed,
            timeout,
            flows,
            ended,
            unconfirmed,
            counters,
            first_ns,
            last_ns,
            drops,
            paths,
            origins,
            process: process.map(Box::new),
            details: details.map(Box::new),
        })
    }

    fn traversal(&self, path: PathFields) -> Option<Traversal> {
        let PathFields {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            marks,
            connmark,
            nat,
            fragment,
            steps,
            doubt,
            packets: _,
        } = path;
        Some(Traversal {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            marks: Arc::clone(self.marks.get(marks)?),
            connmark,
            nat,
            fragment,
            steps: Arc::clone(self.steps.get(steps)?),
            doubt,
        })
    }

    fn read_drops(&self, DropsFields { clash, at, others }: DropsFields) -> Option<Drops> {
        let mut all = Vec::with_capacity(at.len());
        for DropFields { cause, hook, iif, oif, by, packets } in at {
            let cause = match cause {
                CauseFields::Netfilter => Cause::Netfilter,
                CauseFields::Conntrack(cause) => Cause::Conntrack(cause),
                CauseFields::Reason(name) => Cause::Reason(intern_name(&name)),
                CauseFields::Function(name) => Cause::Function(intern_name(&name)),
            };
            let by = match by {
                Some(number) => Some(self.steps.get(number)?.first()?.clone()),
                None => None,
            };
            all.push(DroppedAt { place: DropPoint { cause, hook, iif, oif }, by, packets });
        }
        Some(Drops::of_parts(clash, all, others))
    }
}

/// Appends a value. Nothing that is written here can fail to be written: there are no values of unknown length.
fn append(out: &mut Vec<u8>, value: &impl Serialize) {
    let written = postcard::to_extend(value, std::mem::take(out));
    debug_assert!(written.is_ok(), "a flow that cannot be written");
    *out = written.unwrap_or_default();
}

/// Reads a value, and goes on behind it.
fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
}
