use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Review, count_of};
use crate::facts::Facts;
use crate::inventory::NodeName;
use crate::pki::{Authority, Certificate, Leaf, Location};
use crate::plan::{Action, CaKey, CertificateSource, KeySource, NewCertificate, Plan, Step};
use crate::report::columns::{Cell, Columns, NO_BREAK};
use crate::report::names::{family, folded};
use crate::report::style::{Detail, Style, Tone};
use crate::report::wrap::paragraph;

/// The headings of the table.
pub(super) const HEADINGS: [&str; 7] =
    ["CERTIFICATE", "SUBJECT", "KEY", "UNTIL", "SANS", "COPY OF THE PAIR ON", "FOR"];

/// How far the table stands from the left; it is wide.
const TABLE_INDENT: usize = 2;

/// New certificates that differ in nothing but the node that they are named after.
struct Row<'a> {
    certificates: Vec<&'a NewCertificate>,
    subject: String,
    key: String,
    until: String,
    sans: String,
    copied_from: String,
    users: Vec<&'a NodeName>,
}

/// Returns the new certificates of a plan for people, where it has any.
pub(super) fn text(review: &Review<'_>, style: Style) -> String {
    let plan = review.plan;
    if plan.certificates.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", paragraph(&sentences(plan).join(" "), style.width, 0));
    if style.detail == Detail::Quiet {
        return text;
    }
    let mut columns = Columns::headed(&HEADINGS).moved(TABLE_INDENT);
    for row in rows(review, style) {
        let cells = row.cells(review, style);
        columns.push(cells.into_iter().map(Cell::new).collect());
    }
    text.push_str(&columns.render(style));
    for note in notes(plan) {
        let _ = writeln!(
            text,
            "{:TABLE_INDENT$}{}",
            "",
            style.paint(Tone::Faint, &paragraph(&note, style.width, TABLE_INDENT))
        );
    }
    if style.is_verbose() {
        for (names, sans) in alternative_names(review) {
            let line = paragraph(&format!("{names}: {sans}"), style.width, TABLE_INDENT + 2);
            let _ = writeln!(text, "{:TABLE_INDENT$}SANs of {line}", "");
        }
    }
    text
}

/// Returns the rows of the table for a ticket: every certificate by itself.
pub(super) fn table_rows(review: &Review<'_>, style: Style) -> Vec<Vec<String>> {
    rows(review, style).into_iter().map(|row| row.cells(review, style).to_vec()).collect()
}

/// Returns what is made and copied, and with which keys: for the head of the table.
pub(super) fn sentences(plan: &Plan) -> Vec<String> {
    let made = plan.certificates.iter().filter(|certificate| certificate.leaf().is_some()).count();
    let mut sentences = Vec::new();
    if made > 0 {
        let verb = if made == 1 { "is" } else { "are" };
        sentences.push(format!("{} {verb} made, once for the whole cluster.", count_of(made, "certificate")));
    }
    match plan.certificates.len() - made {
        0 => {}
        1 => sentences.push("1 pair is brought from a node that has it to those that lack it.".to_owned()),
        copied => {
            sentences.push(format!(
                "{copied} pairs are brought from nodes that have them to those that lack them."
            ));
        }
    }
    sentences.extend(plan.ca_keys.iter().map(|key| {
        let (name, node) = (key.authority.name(), &key.node);
        let more = match key.authority {
            Authority::KubeCa => "; it also signs the run's own pair, valid for a day and stored nowhere",
            Authority::RequestheaderCa => "",
        };
        format!("{name}'s key is read from {node}, used in memory and wiped{more}.")
    }));
    sentences
}

/// Returns what a reader must know beside the table.
pub(super) fn notes(plan: &Plan) -> Vec<String> {
    let kept = plan.certificates.iter().filter(|certificate| certificate.keeps_key());
    let kept = kept.map(|certificate| {
        format!(
            "{} keeps its key: it signs the service account tokens, which stay valid. It is not read.",
            certificate.name
        )
    });
    let signed = plan.certificates.iter().filter_map(|certificate| {
        let signer = certificate.leaf()?.authority;
        (signer != Authority::KubeCa)
            .then(|| format!("{} is signed by {}, all others by kube-ca.", certificate.name, signer.name()))
    });
    kept.chain(signed).collect()
}

/// Returns the certificates with the names that each is for, those with the same ones taken together.
pub(super) fn alternative_names(review: &Review<'_>) -> Vec<(String, String)> {
    let mut known: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for certificate in &review.plan.certificates {
        let sans = Said::of(certificate, review.facts).sans;
        match known.iter_mut().find(|(_, other)| *other == sans) {
            _ if sans.is_empty() => {}
            Some((names, _)) => names.push(&certificate.name),
            None => known.push((vec![&certificate.name], sans)),
        }
    }
    known.into_iter().map(|(names, sans)| (names.join(", "), sans.join(" "))).collect()
}

/// Returns the rows, those that differ in a node's name alone taken together unless everything is to be said.
fn rows<'a>(review: &Review<'a>, style: Style) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for certificate in &review.plan.certificates {
        let row = row(review, certificate);
        let alike = |other: &&mut Row<'_>| !style.is_verbose() && other.is_like(&row);
        match rows.iter_mut().find(alike) {
            Some(known) => known.absorb(row),
            None => rows.push(row),
        }
    }
    rows
}

fn row<'a>(review: &Review<'a>, certificate: &'a NewCertificate) -> Row<'a> {
    let said = Said::of(certificate, review.facts);
    let subject = said.subject.strip_prefix("CN=").unwrap_or(&said.subject);
    let subject = match family(&certificate.name) {
        Some(family) if subject == certificate.name => format!("{family}*"),
        _ => subject.to_owned(),
    };
    let (key, copied_from) = match &certificate.source {
        CertificateSource::Made { key: KeySource::Made { algorithm }, .. } => {
            (algorithm.to_string().replace(' ', &NO_BREAK.to_string()), String::new())
        }
        CertificateSource::Made { key: KeySource::Kept { .. }, .. } => ("kept".to_owned(), String::new()),
        CertificateSource::Node { node, .. } => (String::new(), node.to_string()),
    };
    Row {
        certificates: vec![certificate],
        subject,
        key,
        until: said.not_after.map(|end| end.strftime("%F").to_string()).unwrap_or_default(),
        sans: if said.sans.is_empty() { String::new() } else { said.sans.len().to_string() },
        copied_from,
        users: users(review.plan, &certificate.name),
    }
}

impl Row<'_> {
    /// Returns whether two rows say the same of two nodes.
    fn is_like(&self, other: &Self) -> bool {
        let family_of =
            |row: &Self| row.certificates.first().and_then(|certificate| family(&certificate.name));
        let rest =
            |row: &Self| [&row.subject, &row.key, &row.until, &row.sans, &row.copied_from].map(String::clone);
        family_of(self).is_some() && family_of(self) == family_of(other) && rest(self) == rest(other)
    }

    fn absorb(&mut self, other: Self) {
        self.certificates.extend(other.certificates);
        for node in other.users {
            if !self.users.contains(&node) {
                self.users.push(node);
            }
        }
    }

    /// Returns the cells of the row, a dash for nothing.
    fn cells(self, review: &Review<'_>, style: Style) -> [String; 7] {
        let names: Vec<&str> =
            self.certificates.iter().map(|certificate| certificate.name.as_str()).collect();
        let name = super::super::names::certificates(&names).join(" ");
        let many = self.certificates.len() > 1 && !self.sans.is_empty();
        let sans = if many { format!("{} each", self.sans) } else { self.sans };
        let holders = if self.users.is_empty() {
            elsewhere(review.plan, &names)
        } else {
            folded(&self.users, review.facts.nodes.len(), style)
        };
        [name, self.subject, self.key, self.until, sans, self.copied_from, holders]
            .map(|text| if text.is_empty() { "-".to_owned() } else { text })
    }
}

/// Returns the nodes that get a certificate.
fn users<'a>(plan: &'a Plan, name: &str) -> Vec<&'a NodeName> {
    let mut nodes: Vec<&NodeName> = Vec::new();
    for step in plan.steps() {
        let Action::LayAside { files } = &step.action else { continue };
        let gets_it = files.iter().any(|file| file.certificate == name);
        if let Some(node) = step.node.as_ref().filter(|node| gets_it && !nodes.contains(node)) {
            nodes.push(node);
        }
    }
    nodes
}

/// Returns where a certificate goes that no node gets.
fn elsewhere(plan: &Plan, names: &[&str]) -> String {
    let is_admin = names.contains(&crate::pki::KUBE_ADMIN);
    let writes = |step: &Step| matches!(step.action, Action::UpdateKubeConfig { .. });
    let place = if is_admin && plan.steps().any(writes) { "rke's state, kubeconfig" } else { "rke's state" };
    place.to_owned()
}

/// What a new certificate says, wherever it comes from.
pub(super) struct Said {
    pub(super) subject: String,
    pub(super) sans: Vec<String>,
    /// `None` for a pair of a node that was not seen.
    pub(super) not_after: Option<Timestamp>,
    pub(super) signer: Option<Authority>,
}

impl Said {
    pub(super) fn of(certificate: &NewCertificate, facts: &Facts) -> Self {
        match &certificate.source {
            CertificateSource::Made { leaf, not_after, .. } => Self {
                subject: subject(leaf),
                sans: leaf.sans.clone(),
                not_after: Some(*not_after),
                signer: Some(leaf.authority),
            },
            CertificateSource::Node { node, .. } => {
                let seen = facts.node(node).and_then(|node| node.observation());
                let found = seen.and_then(|seen| seen.certificate(Location::Ssl, &certificate.name));
                Self {
                    subject: found.map(|found| found.subject.clone()).unwrap_or_default(),
                    sans: found.map(|found| found.sans.clone()).unwrap_or_default(),
                    not_after: found.map(|found| found.not_after),
                    signer: found.and_then(|found| signer(found, facts)),
                }
            }
        }
    }
}

/// Returns the subject of a certificate as it is made.
fn subject(leaf: &Leaf) -> String {
    match &leaf.organization {
        Some(organization) => format!("O={organization}, CN={}", leaf.common_name),
        None => format!("CN={}", leaf.common_name),
    }
}

/// Returns the CA that signed a certificate which a node has.
fn signer(certificate: &Certificate, facts: &Facts) -> Option<Authority> {
    [Authority::KubeCa, Authority::RequestheaderCa].into_iter().find(|authority| {
        let found = facts.seen().find_map(|(_, seen)| seen.certificate(Location::Ssl, authority.name()));
        found.is_some_and(|found| found.subject == certificate.issuer)
    })
}

/// Returns where the CAs' keys are read, in rows for a ticket.
pub(super) fn ca_key_rows(ca_keys: &[CaKey]) -> Vec<Vec<String>> {
    let row = |key: &CaKey| {
        let name = key.authority.name();
        vec![
            name.to_owned(),
            key.node.to_string(),
            format!("`{}/{name}-key.pem`", key.directory),
            format!("`{}`", key.sha256),
        ]
    };
    ca_keys.iter().map(row).collect()
}
