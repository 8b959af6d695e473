//! What is said at an agent's socket: a line of JSON for each question, and one for each answer. docs/status.md
//! describes both, so a change here needs one there.

use std::{fmt, io};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AgentStatus, StatusBoard};
use crate::model::harmless;

/// Name and version. The version grows when a member goes away or changes its meaning, not when one is added.
pub const PROTOCOL: &str = "conntracker-agent/1";

/// The only question that there is.
const STATUS: &str = "status";

#[derive(Serialize, Deserialize)]
struct Question<'a> {
    protocol: &'a str,
    ask: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<AgentStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// An answer that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct NoAnswer(String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoAnswer {}

/// The question for the status.
#[must_use]
pub fn question() -> String {
    json(&Question { protocol: PROTOCOL, ask: STATUS }).unwrap_or_default()
}

/// Answers a question.
#[must_use]
pub fn answer(question: &str, board: &StatusBoard) -> String {
    let question = serde_json::from_str::<Question<'_>>(question);
    let (status, error) = match question {
        Ok(Question { protocol: PROTOCOL, ask: STATUS }) => (Some(AgentStatus::of(board)), None),
        Ok(Question { protocol: PROTOCOL, .. }) => {
            (None, Some("this agent answers the question `status` alone"))
        }
        Ok(_) => (None, Some("this agent speaks another version: see `protocol`")),
        Err(_) => (None, Some("the question is no object with `protocol` and `ask`")),
    };
    json(&Answer { protocol: PROTOCOL, status, error }).unwrap_or_default()
}

fn json(value: &impl Serialize) -> io::Result<String> {
    let mut line = Vec::new();
    harmless::json(&mut line, value)?;
    String::from_utf8(line).map_err(io::Error::other)
}

/// The status in an answer, as the agent wrote it and as this version understands it.
pub fn status(answer: &str) -> Result<(Value, AgentStatus), NoAnswer> {
    let no = |why: String| NoAnswer(why);
    let mut answer: Value = serde_json::from_str(answer)
        .map_err(|error| no(format!("the answer is no JSON: {error}")))?;
    let protocol = answer.get("protocol").and_then(Value::as_str).unwrap_or("nothing known");
    if protocol != PROTOCOL {
        return Err(no(format!(
            "the agent speaks {protocol}, and this program {PROTOCOL}: use the same version"
        )));
    }
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(no(error.to_owned()));
    }
    let status = answer.get_mut("status").map(Value::take).unwrap_or_default();
    let understood = serde_json::from_value(status.clone())
        .map_err(|error| no(format!("the status is not understood: {error}")))?;
    Ok((status, understood))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> StatusBoard {
        StatusBoard::new(vec!["-p tcp".to_owned()], "/var/log/x.log".to_owned()).unwrap()
    }

    #[test]
    fn a_question_is_one_line_and_is_answered_by_one() {
        let (asked, board) = (question(), board());
        assert_eq!(asked, r#"{"protocol":"conntracker-agent/1","ask":"status"}"#);
        let answered = answer(&asked, &board);
        assert!(!answered.contains('\n'));
        let (raw, first) = status(&answered).unwrap();
        assert_eq!(raw["state"], "starting");
        assert_eq!((first.state, first.pid), (super::super::State::Starting, std::process::id()));
        assert_eq!(first.filters, ["-p tcp"]);
        assert_eq!(first.report.last_written, None);
        board.report_written(7);
        let (_, later) = status(&answer(&asked, &board)).unwrap();
        assert_eq!(later.report.last_flows, Some(7));
        assert!(later.report.last_written.unwrap().ends_with('Z'));
    }

    #[test]
    fn what_is_no_question_is_answered_by_an_error() {
        let board = board();
        for (asked, why) in [
            ("", "no object"),
            ("[]", "no object"),
            (r#"{"protocol":"conntracker-agent/1","ask":"flush"}"#, "`status` alone"),
            (r#"{"protocol":"conntracker-agent/9","ask":"status"}"#, "another version"),
        ] {
            let said = answer(asked, &board);
            let error = status(&said).unwrap_err();
            assert!(error.to_string().contains(why), "{asked}: {said}");
        }
        for (said, why) in [
            ("so", "no JSON"),
            (r#"{"protocol":"conntracker-agent/2","status":{}}"#, "conntracker-agent/2"),
            (r#"{"protocol":"conntracker-agent/1","status":{}}"#, "not understood"),
        ] {
            assert!(status(said).unwrap_err().to_string().contains(why), "{said}");
        }
    }

    #[test]
    fn members_that_an_agent_does_not_have_are_no_error_nor_are_unknown_ones() {
        let said = r#"{"protocol":"conntracker-agent/1","status":{"state":"dreaming","version":"9","pid":1,
            "report":{"destination":"-"},"more":[]}}"#;
        let (_, status) = status(said).unwrap();
        assert_eq!((status.state, status.lost), (super::super::State::Unknown, 0));
    }
}
