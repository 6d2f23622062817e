use super::failure::Failure;
use super::settings::Settings;
use super::terminal::Terminal;
use crate::inventory::Inventory;
use crate::report;

/// Shows the inventory; connects nowhere.
pub(super) fn run(settings: &Settings, terminal: &Terminal) -> Result<u8, Failure> {
    let loaded = settings.load()?;
    let jumps = settings.jumps(&loaded.inventory);
    let inventory =
        Inventory { nodes: loaded.nodes().into_iter().cloned().collect(), ..(*loaded.inventory).clone() };
    if terminal.is_json() {
        let document = report::nodes::document(&inventory, &jumps, &loaded.findings);
        terminal.print(&report::json(&document));
    } else {
        terminal.print(&report::nodes::text(
            &inventory,
            &jumps,
            &loaded.findings_for(terminal),
            terminal.style(),
        ));
    }
    Ok(0)
}
