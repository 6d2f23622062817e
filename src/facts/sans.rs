use super::{NodeFacts, Observation};
use crate::finding::Finding;
use crate::inventory::{Inventory, Role};
use crate::pki::{Location, leaf, san_drift};

/// Returns the findings about serving certificates that lack names which cluster.yml asks for.
///
/// A rotation by rke takes the names from the state that was applied last (v0.2.8 `cmd/cert.go`), so that one after an edit of
/// cluster.yml leaves them out. Names beyond those of cluster.yml do no harm.
pub(super) fn san_findings(
    inventory: &Inventory,
    node: &NodeFacts,
    observation: &Observation,
) -> Vec<Finding> {
    let api_server = node.has(Role::ControlPlane).then(|| "kube-apiserver".to_owned());
    let member = if node.has(Role::Etcd) { inventory.node(&node.name) } else { None };
    let own = member.map(|node| format!("kube-etcd-{}", node.file_name_address()));
    let names = api_server.into_iter().chain(own);
    names.filter_map(|name| lacking(inventory, observation, &name)).collect()
}

/// Returns the finding about one certificate.
fn lacking(inventory: &Inventory, observation: &Observation, name: &str) -> Option<Finding> {
    let present = observation.certificate(Location::Ssl, name)?;
    let lacking = san_drift(&leaf(name, inventory)?, present)?.lacking;
    (!lacking.is_empty()).then(|| {
        let message =
            format!("`ssl/{name}.pem` lacks names that cluster.yml asks for: {}", lacking.join(", "));
        Finding::warning("san-drift", message).hint(
            "a rotation by Rancher or rke does not add them (rancher/rke#1794): `rke up` does, and `certroll plan --via direct`",
        )
    })
}
