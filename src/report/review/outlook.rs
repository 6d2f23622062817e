use crate::plan::{Action, Gate, Plan, Procedure, StageName, Via};

/// Returns what a plan means for whoever uses the cluster.
pub(in crate::report) fn effect(plan: &Plan) -> String {
    if plan.via == Some(Via::Direct) && plan.steps().any(|step| matches!(step.action, Action::Switch { .. }))
    {
        return effect_of_switches(plan);
    }
    if plan.procedure == Procedure::Rollback {
        return effect_of_switches(plan);
    }
    let restarts =
        plan.stages.iter().any(|stage| stage.name > StageName::Repair && stage.name < StageName::Verify);
    let writes_alone = plan.stages.iter().all(|stage| {
        matches!(stage.name, StageName::Preflight | StageName::Backup | StageName::State | StageName::Verify)
    });
    if writes_alone && plan.stage(StageName::State).is_some() {
        "Only what rke keeps of the cluster is written; no component is restarted.".to_owned()
    } else if restarts {
        "Components will be restarted and the cluster may be unavailable for a while: use a maintenance window."
            .to_owned()
    } else {
        "Files are added; no component is restarted.".to_owned()
    }
}

/// Returns what switches of files mean: one component at a time, and what is away all the same.
fn effect_of_switches(plan: &Plan) -> String {
    let mut sentences = vec![
        "A node's components are restarted one at a time, each healthy before the next, and pods keep running.",
    ];
    if plan.stage(StageName::EtcdQuorum).is_some() {
        sentences.push(
            "etcd has no quorum, so the API is away already: as many members as a quorum needs go at once, and the API comes back with the first control plane node.",
        );
    } else if is_alone(plan, "etcd") || is_alone(plan, "kube-apiserver") {
        sentences.push("The API is away while a member of etcd or an API server restarts that no other stands in for: use a maintenance window.");
    } else if restarts(plan, "kube-apiserver") {
        sentences.push(
            "API servers go one after the other: clients of a load balancer need not notice, those of a single one wait some 10 s.",
        );
    } else if restarts(plan, "etcd") {
        sentences.push(
            "A member of etcd goes only while all others are healthy: clients of the API need not notice.",
        );
    }
    if plan.stage(StageName::Rotate).is_some() {
        sentences.push(
            "At the end Rancher rotates, which restarts components its own way and may make the cluster unavailable for a while: use a maintenance window.",
        );
    }
    sentences.join(" ")
}

/// Returns whether a component is restarted anywhere.
fn restarts(plan: &Plan, container: &str) -> bool {
    plan.steps().any(|step| {
        matches!(&step.action, Action::Switch { containers, .. } | Action::Restore { containers, .. } if containers.iter().any(|name| name == container))
    })
}

/// Returns whether a component is restarted while no other of its kind is there.
fn is_alone(plan: &Plan, container: &str) -> bool {
    plan.steps().any(|step| {
        let (Action::Switch { containers, gate, .. } | Action::Restore { containers, gate, .. }) =
            &step.action
        else {
            return false;
        };
        let others = match gate {
            Gate::Open | Gate::NoQuorum { .. } => return false,
            Gate::Etcd { members } => members,
            Gate::ApiServers { nodes } => nodes,
        };
        containers.iter().any(|name| name == container)
            && others.iter().all(|node| Some(node) == step.node.as_ref())
    })
}
