//! An answer is one body of Rancher's API (norman): an object, a collection in pages, or what went wrong.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::RancherError;

/// How much of a message is kept, in characters: a transitioning message can hold the whole output of a failed command.
const MESSAGE_LIMIT: usize = 300;

/// A page of a collection.
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    /// The objects on this page.
    pub(super) data: Vec<T>,
    pagination: Option<Pagination>,
}

#[derive(Debug, Deserialize)]
struct Pagination {
    next: Option<String>,
}

impl<T> Page<T> {
    /// Returns the link of the next page.
    pub(super) fn next(&self) -> Option<&str> {
        self.pagination.as_ref()?.next.as_deref().filter(|link| !link.is_empty())
    }
}

/// One of the server's settings.
#[derive(Debug, Deserialize)]
pub(super) struct Setting {
    value: Option<String>,
}

impl Setting {
    /// Returns the value, empty where there is none.
    pub(super) fn into_value(self) -> String {
        self.value.unwrap_or_default()
    }
}

/// Reads a body that holds one document; `what` names it in the error.
pub(super) fn parse<T: DeserializeOwned>(what: &str, body: &str) -> Result<T, RancherError> {
    serde_json::from_str(body).map_err(|error| RancherError::malformed(what, error))
}

/// Returns what a body says went wrong.
///
/// Rancher may send two documents in one body, and a `status` inside that differs from the real one, now as a number, now as
/// text: the messages alone are read, of every document.
pub(super) fn complaint(body: &str) -> String {
    #[derive(Deserialize)]
    struct Complaint {
        message: Option<String>,
        code: Option<String>,
    }
    let said: Vec<String> = serde_json::Deserializer::from_str(body)
        .into_iter::<Complaint>()
        .map_while(Result::ok)
        .filter_map(|complaint| complaint.message.or(complaint.code))
        .filter(|text| !text.is_empty())
        .collect();
    let text = if said.is_empty() { one_line(body) } else { one_line(&said.join(": ")) };
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

/// Reads a body as everything that is asked of Rancher, and returns what each reader made of it; for the fuzzing driver.
#[doc(hidden)]
pub fn read_in_every_way(body: &str) -> [String; 5] {
    fn of<T: std::fmt::Debug>(result: Result<T, RancherError>) -> String {
        result.map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
    }
    let nodes = parse::<Page<super::node::NodeBody>>("the list of nodes", body);
    let nodes = nodes.map(|page| page.data.into_iter().map(super::RancherNode::from).collect::<Vec<_>>());
    [
        complaint(body),
        of(super::Cluster::parse(body)),
        of(nodes),
        of(parse::<Page<Setting>>("the settings", body)),
        of(parse::<Setting>("a setting", body)),
    ]
}

/// Returns a text on one line, cut after 300 characters.
pub(super) fn one_line(text: &str) -> String {
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match folded.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}…", folded.get(..end).unwrap_or_default()),
        None => folded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(capture: &str) -> &str {
        capture.split_once("\n\n").or_else(|| capture.split_once("\r\n\r\n")).unwrap().1
    }

    #[test]
    fn complaints_of_a_real_server_are_read() {
        for (capture, said) in [
            (include_str!("../../tests/cases/rancher/bad-token.http"), "must authenticate"),
            (
                include_str!("../../tests/cases/rancher/not-found.http"),
                "clusters.management.cattle.io \"c-none\" not found",
            ),
            (
                include_str!("../../tests/cases/rancher/rotate-list.http"),
                "failed to parse request content: unmarshaling input error: json: cannot unmarshal array into Go \
                 struct field RotateCertificateInput.services of type string",
            ),
        ] {
            assert_eq!(complaint(body(capture)), said);
        }
    }

    #[test]
    fn whatever_stands_in_front_of_rancher_is_quoted() {
        assert_eq!(complaint("<html>\n<h1>502 Bad Gateway</h1>\n"), "<html> <h1>502 Bad Gateway</h1>");
        assert_eq!(complaint(""), "no reason given");
        assert_eq!(complaint(r#"{"type":"error","code":"ServerError","message":null}"#), "ServerError");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(one_line("a\n  b\tc"), "a b c");
        let cut = one_line(&"ü".repeat(1000));
        assert_eq!(cut, format!("{}…", "ü".repeat(300)));
    }

    #[test]
    fn a_page_knows_the_next_one() {
        let last: Page<u8> =
            parse("numbers", r#"{"data":[1],"pagination":{"limit":1000,"total":1}}"#).unwrap();
        assert_eq!(last.next(), None);
        assert_eq!(last.data, [1]);
        let first: Page<u8> =
            parse("numbers", r#"{"data":[],"pagination":{"next":"/v3/x?marker=2"}}"#).unwrap();
        assert_eq!(first.next(), Some("/v3/x?marker=2"));
        let error = parse::<Page<u8>>("the list of nodes", "<html>").unwrap_err().to_string();
        assert!(error.starts_with("the list of nodes that Rancher gave cannot be read: "), "{error}");
    }
}
