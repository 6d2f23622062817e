use super::failure::{Failure, USAGE};
use super::settings::Settings;
use super::terminal::Terminal;
use crate::inventory::{Inventory, Node};
use crate::report;
use crate::report::nodes::Way;
use crate::transport::{self, Reach};

/// Shows the inventory, and how its nodes would be reached; connects nowhere.
pub(super) fn run(settings: &Settings, terminal: &Terminal) -> Result<u8, Failure> {
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    let nodes: Vec<Node> = loaded.nodes().into_iter().cloned().collect();
    let inventory = Inventory { nodes, ..(*loaded.inventory).clone() };
    let ways = ways(settings, &inventory)?;
    if terminal.is_json() {
        let document = report::nodes::document(&inventory, &ways, &loaded.findings);
        terminal.print(&report::json(&document));
    } else {
        let findings = loaded.findings_for(terminal);
        terminal.print(&report::nodes::text(&inventory, &ways, &findings, terminal.style()));
    }
    Ok(0)
}

/// Returns how each node would be reached.
fn ways(settings: &Settings, inventory: &Inventory) -> Result<Vec<Way>, Failure> {
    let connections = settings.connections()?;
    let way = |node: &Node| {
        let reach = transport::reach(connections, inventory.bastion.as_ref(), node).map_err(|error| {
            let hint = error.hint();
            Failure::message(USAGE, format!("{}: {error}", node.name)).hint(hint)
        })?;
        let Reach { at, user, keys, inline_key, certificates, inline_certificate, agent, jumps, decisions } =
            reach;
        let transport::Endpoint { host, port } = at;
        Ok(Way {
            host,
            port,
            user,
            keys,
            inline_key,
            certificates,
            inline_certificate,
            agent,
            jumps,
            decisions,
        })
    };
    inventory.nodes.iter().map(way).collect()
}
