use super::policy::Policy;

/// Returns what the operator is asked to do, by Rancher's versions.
pub(super) fn instructions(policy: &Policy, is_rancher_launched: bool) -> Vec<String> {
    let what = match policy.services.as_slice() {
        [] => "Rotate all service certificates".to_owned(),
        services => {
            let names: Vec<&str> = services.iter().map(|service| service.as_str()).collect();
            format!("Rotate an individual service: {}, one after the other", names.join(", "))
        }
    };
    let mut lines = vec![
        format!("Rancher 2.2 and later: the cluster's menu (⋮), Rotate Certificates, \"{what}\", Save"),
        "Rancher 2.0.14 / 2.1.9 and later of 2.0 and 2.1: View in API of the cluster, the action rotateCertificates, Show Request, Send Request"
            .to_owned(),
    ];
    if !is_rancher_launched {
        let words = policy.services.iter().flat_map(|service| ["--service", service.as_str()]);
        let command: Vec<&str> = ["rke", "cert", "rotate"].into_iter().chain(words).collect();
        lines.push(format!("a cluster that rke built: `{}` beside its cluster.rkestate; if that is lost, `certroll apply repair` first", command.join(" ")));
    }
    lines
}
