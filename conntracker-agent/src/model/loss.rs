//! Everything that a report can lack, as one list: the footer of reports, JSON and `--strict` are made from it.
//! docs/limitations.md says what to do about each.

/// Declares [`Loss`], and with each variant its name, where it is counted, and its sentence.
macro_rules! losses {
    ($($variant:ident = $name:literal, $counted:ident: $sentence:literal;)*) => {
        /// Something that a report lacks, or a reason why it may lack something.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Loss {
            $(#[doc = $sentence] $variant,)*
        }

        impl Loss {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in footers and JSON: lower case and underscores.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The loss of a name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|loss| loss.name() == name)
            }

            /// What was lost, in words.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)*
                }
            }

            /// Who counts it.
            #[must_use]
            pub fn counted(self) -> CountedBy {
                match self {
                    $(Self::$variant => CountedBy::$counted,)*
                }
            }
        }
    };
}

/// Who counts a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CountedBy {
    /// The BPF programs, in their map of counters (conntracker-common/src/counters.rs).
    Programs,
    /// The kernel itself.
    Kernel,
    /// The agent.
    Agent,
}

losses! {
    DumpEntriesRejected = "dump_entries_rejected", Agent: "dumped entries that could not be decoded";
    DumpsInterrupted = "dumps_interrupted", Kernel: "dumps during which the table was resized: entries may be missing or double";
    DumpsFailed = "dumps_failed", Agent: "dumps that failed: flows and counts of before may be missing";
    SecurityContextsUntold = "security_contexts_untold", Agent: "entries have a security context, which only --via netlink can tell";
    ProbeRunsMissed = "probe_runs_missed", Kernel: "runs of our programs that the kernel left out because they would have interrupted themselves";
    EndRecordsLost = "end_records_lost", Programs: "ends of flows whose record found the ring full: their last counts are missing";
    PathRecordsLost = "path_records_lost", Programs: "traced packets whose record found the ring full";
    PathRaces = "path_races", Programs: "packets that met rules which had changed and were not known yet: not attributed";
    PathFramesLost = "path_frames_lost", Programs: "traced packets that left their hook unseen: queued, stolen, or on another CPU";
    PathFramesFull = "path_frames_full", Programs: "packets that were not traced because others were under way on their CPU";
    PathsUnresolved = "paths_unresolved", Agent: "records of rules that are gone: not attributed";
    PathsContradicting = "paths_contradicting", Agent: "records that no way through the listed rules explains";
    PathsNested = "paths_nested", Programs: "traced packets whose counters others moved at the same time: known by their chains only";
    ProbeCallsMissed = "probe_calls_missed", Programs: "calls of functions whose beginning or end kprobes missed: packets under way are known by their chains only";
    RulesetRaces = "ruleset_races", Agent: "times that the ruleset changed again before it was understood";
    RulesetsFailed = "rulesets_failed", Agent: "times that the ruleset could not be listed, or not in time at the start";
    NewFlowRecordsLost = "new_flow_records_lost", Programs: "new flows whose record found the ring full";
    ReplyRecordsLost = "reply_records_lost", Programs: "first replies whose record found the ring full";
    DropRecordsLost = "drop_records_lost", Programs: "dropped packets whose record found the ring full: they are counted, but what conntrack knew of them is missing";
    LostRecordsLost = "lost_records_lost", Programs: "packets lost elsewhere in the kernel whose record found the ring full: they are counted, but what conntrack knew of them is missing";
    DedupMapFull = "dedup_map_full", Programs: "flows that found no room in the kernel's map: they are reported each time";
    KernelReadsFailed = "kernel_reads_failed", Programs: "packets whose conntrack entry could not be read";
    DropsUnknown = "drops_unknown", Programs: "dropped packets that are not IP, or whose namespace could not be told";
    RecordsRejected = "records_rejected", Agent: "records that could not be decoded";
    RecordsForeign = "records_foreign", Agent: "records of a namespace that is not observed";
    DropsUncounted = "drops_uncounted", Agent: "dropped packets that no flow's count has: their key found no room in the kernel's map, and their record none in the ring";
    LostUncounted = "lost_uncounted", Agent: "packets lost elsewhere in the kernel that no flow's count has: their key found no room in the kernel's map, and their record none in the ring";
    NewFlowsUncounted = "new_flows_uncounted", Agent: "new flows that no count accounts for: it went with an evicted entry of the kernel's map";
    FlowsEvicted = "flows_evicted", Agent: "flows that found no room in the table: they are summed up, not listed";
    EntriesForgotten = "entries_forgotten", Agent: "conntrack entries that found no room in the table: their packets may be counted twice, and packets without an entry not be told with their flow";
    EventsNotRecorded = "events_not_recorded", Agent: "events that are missing in the recording: the disk was full or too slow";
    RecordingDamaged = "recording_blocks_damaged", Agent: "damaged or missing blocks of the recording: left out";
    RecordingGaps = "recording_events_missing", Agent: "events that the recording lacks";
    DropPathsForgotten = "drop_paths_forgotten", Agent: "paths of dropped packets that found no room in the table: which rule drops them is not told";
    DropsUnprinted = "drops_unprinted", Agent: "dropped packets that were not printed as they happened because the reader was too slow: the report counts them";
    EventOverruns = "event_overruns", Kernel: "times that the kernel found the event socket full and dropped events, nobody knows how many";
    EventsRejected = "events_rejected", Agent: "events that could not be decoded";
    EventsForeign = "events_foreign", Agent: "messages to the event socket that the kernel did not send: ignored";
}

impl Loss {
    /// So many times.
    #[must_use]
    pub fn times(self, count: u64) -> LossCount {
        LossCount { loss: self, count }
    }
}

/// A loss, and how often it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LossCount {
    /// What.
    pub loss: Loss,
    /// How often.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_loss_has_a_name_of_its_own_and_a_sentence() {
        let names: HashSet<_> = Loss::ALL.iter().map(|loss| loss.name()).collect();
        assert_eq!(names.len(), Loss::ALL.len());
        for loss in Loss::ALL {
            let lower = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(loss.name().chars().all(lower) && !loss.sentence().is_empty(), "{loss:?}");
        }
    }

    #[test]
    fn the_documents_name_each_loss() {
        for (file, text) in [
            ("docs/limitations.md", include_str!("../../../docs/limitations.md")),
            ("docs/schema.md", include_str!("../../../docs/schema.md")),
        ] {
            for loss in Loss::ALL {
                assert!(text.contains(&format!("`{}`", loss.name())), "{file} lacks {loss:?}");
            }
        }
    }
}
