use crate::command::quote;
use crate::facts::Facts;
use crate::inventory::NodeName;
use crate::plan::{Action, Stage, Step};

/// Returns the commands of a step as they are run, without what they read; requests and instructions where it has none.
///
/// A node that was not seen has none: its folders are not known.
pub(super) fn commands(step: &Step, facts: &Facts) -> Vec<String> {
    match &step.action {
        Action::RotateByRancher { url, cluster_id, service, .. } => {
            let body = match service {
                Some(service) => serde_json::json!({ "services": service.as_str() }),
                None => serde_json::json!({ "caCertificates": false, "services": "" }),
            };
            vec![format!("POST {}?action=rotateCertificates {body}", cluster_url(url, cluster_id))]
        }
        Action::RotateByRke { program, arguments, folder, .. } => {
            vec![rke_command(program, arguments, folder)]
        }
        Action::KeepBastionFiles { paths } => {
            paths.iter().map(|path| format!("copy {path} beside itself, where it is there")).collect()
        }
        Action::RotateByOperator { instructions, .. } => instructions.clone(),
        Action::UpdateClusterState { names, .. } => cluster_state_requests(names),
        Action::UpdateStateFile { path, .. } => vec![format!("write {path}, the old one beside it")],
        Action::UpdateKubeConfig { path, server } => {
            vec![format!("write {path}, the old one beside it; a new one names {server}")]
        }
        Action::RestoreClusterState { kept, .. } => {
            let objects = kept.iter().map(|object| object.file_name.trim_end_matches(".json"));
            objects.map(|name| format!("PUT /api/v1/namespaces/kube-system/.../{name}")).collect()
        }
        Action::RestoreBastionFile { path, copy: Some(copy) } => {
            vec![format!("write {path} as {copy} holds it, the present one beside it")]
        }
        Action::RestoreBastionFile { path, copy: None } => vec![format!("move {path} away, beside it")],
        action => {
            let node = step.node.as_ref().and_then(|name| facts.node(name));
            let observation = node.and_then(|node| node.observation());
            let commands = observation.map(|observation| action.commands(observation)).unwrap_or_default();
            commands.into_iter().map(|command| command.script).collect()
        }
    }
}

/// Returns what has rke rotate, as a shell takes it.
pub(in crate::report) fn rke_command(program: &str, arguments: &[String], folder: &str) -> String {
    let words: Vec<String> =
        std::iter::once(program).chain(arguments.iter().map(String::as_str)).map(quote).collect();
    format!("cd {} && {}", quote(folder), words.join(" "))
}

/// Returns what is asked of an API server to write new certificates into what rke keeps there.
fn cluster_state_requests(names: &[String]) -> Vec<String> {
    let secrets = names.iter().map(|name| format!("secrets/{name}"));
    let objects = ["configmaps/full-cluster-state".to_owned(), "secrets/full-cluster-state".to_owned()];
    let request = |object| format!("PUT /api/v1/namespaces/kube-system/{object}, where it is there");
    objects.into_iter().chain(secrets).map(request).collect()
}

/// Returns the address of a cluster in Rancher's API.
pub(super) fn cluster_url(url: &str, cluster_id: &str) -> String {
    let base = url.trim_end_matches('/').trim_end_matches("/v3");
    format!("{base}/v3/clusters/{cluster_id}")
}

/// Returns the commands of a stage, nodes with the same ones taken together; nodes without any are left out.
pub(super) fn by_nodes<'a>(stage: &'a Stage, facts: &Facts) -> Vec<(Vec<&'a NodeName>, Vec<String>)> {
    let mut by_node: Vec<(Option<&NodeName>, Vec<String>)> = Vec::new();
    for step in &stage.steps {
        let commands = commands(step, facts);
        match by_node.iter_mut().find(|(node, _)| *node == step.node.as_ref()) {
            Some((_, known)) => known.extend(commands),
            None => by_node.push((step.node.as_ref(), commands)),
        }
    }
    let mut groups: Vec<(Vec<&NodeName>, Vec<String>)> = Vec::new();
    for (node, commands) in by_node.into_iter().filter(|(_, commands)| !commands.is_empty()) {
        match groups.iter_mut().find(|(_, known)| *known == commands) {
            Some((nodes, _)) => nodes.extend(node),
            None => groups.push((node.into_iter().collect(), commands)),
        }
    }
    groups
}
