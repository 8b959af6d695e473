//! What host and guest say to each other: the job lies in the initramfs, and the guest answers in
//! lines through its port. Lines that are not of this protocol are what the step said.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Where the job lies in the guest.
pub const JOB: &str = "/job.json";

/// Word of the kernel's command line that names the port.
pub const PORT: &str = "conntracker.port";

/// How lines of the protocol start.
const MARK: &str = "@vm ";

/// What a guest shall do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// Directory to do it in.
    pub directory: String,
    /// Environment of all steps.
    pub environment: Vec<(String, String)>,
    /// Programs, one after the other.
    pub steps: Vec<Step>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Name, one word.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long it may take.
    pub limit: Duration,
}

/// A line of the guest.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// It is up, and this is its kernel.
    Ready(String),
    /// A step begins.
    Start(String),
    /// A step has ended: how, and after how many seconds.
    End(Ended, f64),
    /// All is done.
    Done,
    /// The guest cannot do its job.
    Broken(String),
    /// Anything else.
    Text(String),
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// By itself.
    Exit(i32),
    /// Otherwise: by a signal, by the time limit, or it did not start.
    Otherwise(String),
}

impl Job {
    pub fn to_json(&self) -> String {
        let Self { directory, environment, steps } = self;
        let steps: Vec<_> = steps
            .iter()
            .map(|Step { name, command, limit }| {
                json!({"name": name, "command": command, "seconds": limit.as_secs()})
            })
            .collect();
        let environment: serde_json::Map<_, _> =
            environment.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        json!({"directory": directory, "environment": environment, "steps": steps}).to_string()
    }

    pub fn from_json(text: &str) -> Result<Self> {
        let job: Value = serde_json::from_str(text)?;
        let read = || -> Option<Self> {
            let string = |value: &Value| Some(value.as_str()?.to_owned());
            let step = |step: &Value| {
                Some(Step {
                    name: string(&step["name"])?,
                    command: step["command"]
                        .as_array()?
                        .iter()
                        .map(string)
                        .collect::<Option<_>>()?,
                    limit: Duration::from_secs(step["seconds"].as_u64()?),
                })
            };
            let variable = |(key, value): (&String, &Value)| Some((key.clone(), string(value)?));
            Some(Self {
                directory: string(&job["directory"])?,
                environment: job["environment"]
                    .as_object()?
                    .iter()
                    .map(variable)
                    .collect::<Option<_>>()?,
                steps: job["steps"].as_array()?.iter().map(step).collect::<Option<_>>()?,
            })
        };
        read().with_context(|| format!("not a job: {text}"))
    }
}

impl Line {
    pub fn parse(line: &str) -> Self {
        let text = || Self::Text(line.to_owned());
        let Some((word, rest)) =
            line.strip_prefix(MARK).map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        else {
            return text();
        };
        match word {
            "ready" => Self::Ready(rest.to_owned()),
            "start" => Self::Start(rest.to_owned()),
            "done" => Self::Done,
            "broken" => Self::Broken(rest.to_owned()),
            "end" => {
                let Some((seconds, how)) = rest.split_once(' ') else { return text() };
                let Ok(seconds) = seconds.parse() else { return text() };
                let ended = match how.strip_prefix("exit ").and_then(|code| code.parse().ok()) {
                    Some(code) => Ended::Exit(code),
                    None => Ended::Otherwise(how.to_owned()),
                };
                Self::End(ended, seconds)
            }
            _ => text(),
        }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready(release) => write!(f, "{MARK}ready {release}"),
            Self::Start(name) => write!(f, "{MARK}start {name}"),
            Self::End(Ended::Exit(code), seconds) => {
                write!(f, "{MARK}end {seconds:.1} exit {code}")
            }
            Self::End(Ended::Otherwise(how), seconds) => write!(f, "{MARK}end {seconds:.1} {how}"),
            Self::Done => write!(f, "{MARK}done"),
            Self::Broken(why) => write!(f, "{MARK}broken {why}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_arrives_as_it_was_sent() {
        let job = Job {
            directory: "/a b".into(),
            environment: vec![("KEY".into(), "a \"value\"".into())],
            steps: vec![Step {
                name: "one".into(),
                command: vec!["sh".into(), "-c".into(), "echo $KEY".into()],
                limit: Duration::from_mins(2),
            }],
        };
        assert_eq!(Job::from_json(&job.to_json()).unwrap(), job);
        assert!(Job::from_json("{}").is_err());
    }

    #[test]
    fn lines_arrive_as_they_were_sent() {
        for line in [
            Line::Ready("6.1.0-56-cloud-amd64".into()),
            Line::Start("flows".into()),
            Line::End(Ended::Exit(101), 1.5),
            Line::End(Ended::Otherwise("signal 9 after the time limit".into()), 60.0),
            Line::Done,
            Line::Broken("no job".into()),
            Line::Text("test result: ok. 1 passed".into()),
            Line::Text("@vm what?".into()),
        ] {
            assert_eq!(Line::parse(&line.to_string()), line);
        }
    }
}
