use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;

use super::arguments::{
    DirectOptions, Output, PlanArguments, PlanOptions, ProcedureName, RENEW_DAYS, RancherOptions, ThenName,
    VALIDITY_DAYS, ViaName,
};
use super::check::look;
use super::failure::{CANCELLED, FAILED, Failure, REFUSED, USAGE, WORRYING};
use super::settings::{Loaded, Settings};
use super::terminal::Terminal;
use crate::command::quote;
use crate::execute::Rancher;
use crate::facts::Facts;
use crate::facts::probe::KeyReading;
use crate::gather::Gatherer;
use crate::inventory::{MaxUnavailable, Node, Role};
use crate::journal::{run_name, save_plan};
use crate::plan::{
    AfterDirect, CustomCertificates, Direct, HEALTH_TIMEOUT, KubeletServing, Plan, Policy, Procedure,
    RancherTarget, Renewal, Via, check, plan,
};
use crate::report::{self, review::Review};
use crate::workstation::bastion_files;

/// How long Rancher or rke may take: their own steps need minutes, and Rancher's retries come every ten.
const RANCHER_WAIT: Duration = Duration::from_mins(20);

/// How long the operator may take.
const OPERATOR_WAIT: Duration = Duration::from_mins(60);

/// A plan with all that it was made from and that carries it out.
pub(super) struct Planned {
    /// The run whose lock may be taken away, by its whole name.
    pub(super) break_lock: Option<String>,
    pub(super) loaded: Loaded,
    pub(super) facts: Facts,
    pub(super) gatherer: Gatherer,
    pub(super) rancher: Option<Rancher>,
    pub(super) plan: Plan,
}

/// Shows what would be done.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &PlanArguments,
) -> Result<u8, Failure> {
    let planned = make(settings, terminal, (&arguments.options, &arguments.rancher)).await?;
    let plan = &planned.plan;
    if let Some(path) = &arguments.save {
        save_plan(path, plan).map_err(|error| Failure::new(FAILED, error))?;
    }
    let next = match &arguments.save {
        Some(path) => format!(
            "`certroll apply --plan {0} -c {1}` ({0} is saved)",
            quoted(path),
            quoted(settings.config())
        ),
        None => format!("`certroll apply{}`", options_again(settings, plan, arguments)),
    };
    show(settings, terminal, &planned, Some(&next).filter(|_| plan.has_work()).map(String::as_str));
    let is_partial = plan.misses_nodes();
    Ok(match (plan.blockers.is_empty(), plan.has_work()) {
        (false, _) => REFUSED,
        (true, _) if is_partial => FAILED,
        (true, true) if arguments.detailed_exitcode => WORRYING,
        (true, _) => 0,
    })
}

/// Returns the arguments that make the same plan again.
fn options_again(settings: &Settings, plan: &Plan, arguments: &PlanArguments) -> String {
    let mut words = vec![String::new(), plan.procedure.to_string()];
    words.extend(plan.via.map(|via| format!("--via {via}")));
    words.push(format!("-c {}", quoted(settings.config())));
    words.extend(settings.common.nodes.iter().map(|pattern| format!("-n {}", quote(pattern))));
    words.extend(plan.services.iter().map(|service| format!("--service {service}")));
    let PlanArguments { options, rancher, .. } = arguments;
    words.extend(options.force.then(|| "--force".to_owned()));
    if options.renew_days != RENEW_DAYS {
        words.push(format!("--renew-days {}", options.renew_days));
    }
    words.extend(options.max_unavailable.map(|most| match most {
        MaxUnavailable::Count(count) => format!("--max-unavailable {count}"),
        MaxUnavailable::Percent(percent) => format!("--max-unavailable {percent}%"),
    }));
    words.extend(options.wait.map(|wait| format!("--wait {}s", wait.as_secs())));
    words.extend(options.deadline.map(|deadline| format!("--deadline {}s", deadline.as_secs())));
    words.extend(options.without_majority.then(|| "--without-majority".to_owned()));
    if options.health_timeout != HEALTH_TIMEOUT {
        words.push(format!("--health-timeout {}s", options.health_timeout.as_secs()));
    }
    words.extend(direct_again(&options.direct));
    words.extend(options.rke.rke_binary.iter().map(|file| format!("--rke-binary {}", quoted(file))));
    words.extend(rancher.rancher_url.iter().map(|url| format!("--rancher-url {}", quote(url))));
    words.extend(rancher.rancher_cluster.iter().map(|name| format!("--rancher-cluster {}", quote(name))));
    words.extend(rancher.rancher_ca.iter().map(|file| format!("--rancher-ca {}", quoted(file))));
    words.extend(
        rancher.rancher_ca_checksum.iter().map(|sum| format!("--rancher-ca-checksum {}", quote(sum))),
    );
    words.extend(
        rancher.rancher_token_file.iter().map(|file| format!("--rancher-token-file {}", quoted(file))),
    );
    words.join(" ")
}

/// Returns the options of `--via direct` that were given.
fn direct_again(options: &DirectOptions) -> Vec<String> {
    let mut words = Vec::new();
    if options.validity != VALIDITY_DAYS {
        words.push(format!("--validity {}", options.validity));
    }
    let switches = [
        ("--kubelet-serving", options.kubelet_serving),
        ("--replace-custom", options.replace_custom),
        ("--then rancher", options.then.is_some()),
        ("--accept-rancher-revert", options.accept_rancher_revert),
    ];
    words.extend(switches.iter().filter(|(_, given)| *given).map(|(option, _)| (*option).to_owned()));
    words
}

/// Returns a path as a shell takes it.
fn quoted(path: &Path) -> String {
    quote(&path.display().to_string())
}

/// Prints a plan in the form that was asked for.
pub(super) fn show(settings: &Settings, terminal: &Terminal, planned: &Planned, next: Option<&str>) {
    let Planned { loaded, facts, plan, .. } = planned;
    let review = Review { plan, facts, next };
    let text = match terminal.output() {
        Output::Text => report::review::text(&review, terminal.style()),
        Output::Json => report::json(&report::review::document(&review)),
        Output::Markdown => report::review::markdown(&review),
        Output::Shell => {
            let now = settings.clock.now();
            report::shell::runbook(plan, &loaded.inventory, facts, &run_name(now, plan), now)
        }
    };
    terminal.print(&text);
}

/// Reads, looks and plans.
pub(super) async fn make(
    settings: &Settings,
    terminal: &Terminal,
    (options, rancher): (&PlanOptions, &RancherOptions),
) -> Result<Planned, Failure> {
    let procedure = procedure(options);
    let via = if procedure == Procedure::Rotate { Some(via(options, terminal)?) } else { None };
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    refuse_stray_options(options, via)?;
    let needs_rancher = via == Some(Via::Rancher) || options.direct.then.is_some();
    let (rancher, target) = match via {
        _ if needs_rancher => {
            super::rancher::connect(rancher, &loaded.inventory, terminal).await.map(known)?
        }
        _ => super::rancher::consult(rancher, &loaded.inventory, terminal).await?.map_or((None, None), known),
    };
    let gatherer = settings.gatherer(&loaded.inventory, KeyReading::PublicPrefix)?;
    let facts = look(&gatherer, &nodes_to_look_at(&loaded, procedure), terminal).await;
    let mut policy = policy(settings, options, &loaded, via, target);
    if via == Some(Via::Direct) {
        policy.direct = Some(direct(settings, &options.direct)?);
    }
    if via == Some(Via::Rke) {
        policy.rke = Some(super::rke::target(settings, &loaded.inventory, &options.rke).await?);
    }
    policy.break_lock = options.break_lock.as_deref().map(|part| lock_to_break(&facts, part)).transpose()?;
    let mut plan = plan(&loaded.inventory, &facts, &policy);
    plan.deadline = options.deadline;
    plan.blockers.extend(check(&plan, &facts));
    plan.findings.extend(loaded.findings_for(terminal));
    Ok(Planned { break_lock: policy.break_lock, loaded, facts, gatherer, rancher, plan })
}

fn known((rancher, target): (Rancher, RancherTarget)) -> (Option<Rancher>, Option<RancherTarget>) {
    (Some(rancher), Some(target))
}

/// Returns the nodes that a plan must know: what is selected for restarts is enough, beside the control plane with its lock.
fn nodes_to_look_at(loaded: &Loaded, procedure: Procedure) -> Vec<&Node> {
    let selected = loaded.nodes();
    let is_needed = |node: &&Node| {
        procedure != Procedure::Restart
            || node.has(Role::ControlPlane)
            || selected.iter().any(|other| other.name == node.name)
    };
    loaded.inventory.nodes.iter().filter(is_needed).collect()
}

fn procedure(options: &PlanOptions) -> Procedure {
    match options.procedure {
        None | Some(ProcedureName::Rotate) => Procedure::Rotate,
        Some(ProcedureName::Repair) => Procedure::Repair,
        Some(ProcedureName::Restart) => Procedure::Restart,
    }
}

/// Returns the run whose lock is meant by a part of its name, as every command takes one.
pub(super) fn lock_to_break(facts: &Facts, part: &str) -> Result<String, Failure> {
    let mut runs: Vec<&str> = facts
        .seen()
        .filter_map(|(_, seen)| seen.lock.as_ref())
        .map(|lock| lock.holder.run.as_str())
        .filter(|run| run.contains(part))
        .collect();
    runs.sort_unstable();
    runs.dedup();
    match runs.as_slice() {
        [] => Ok(part.to_owned()),
        [run] => Ok((*run).to_owned()),
        runs => Err(Failure::usage(format!("more than one lock matches `{part}`: {}", runs.join(", ")))),
    }
}

/// Returns who makes the certificates: there is no default, a person is asked.
fn via(options: &PlanOptions, terminal: &Terminal) -> Result<Via, Failure> {
    match options.via {
        Some(ViaName::Rancher) => Ok(Via::Rancher),
        Some(ViaName::Manual) => Ok(Via::Manual),
        Some(ViaName::Direct) => Ok(Via::Direct),
        Some(ViaName::Rke) => Ok(Via::Rke),
        None if terminal.can_ask() => ask_via(terminal),
        None => Err(Failure::usage("`rotate` needs to know who makes the new certificates")
            .hint("give --via rancher, --via direct, --via rke or --via manual".to_owned())),
    }
}

fn ask_via(terminal: &Terminal) -> Result<Via, Failure> {
    loop {
        let answer = terminal.ask(
            "Who makes the new certificates, `rancher` (through its API), `direct` (certroll, with the cluster's CA), `rke` (the command on \
             this machine) or `manual` (you, certroll waits)?",
        );
        match answer.as_deref() {
            Some("rancher") => return Ok(Via::Rancher),
            Some("direct") => return Ok(Via::Direct),
            Some("rke") => return Ok(Via::Rke),
            Some("manual") => return Ok(Via::Manual),
            None | Some("") => return Err(Failure::message(CANCELLED, "no method was chosen")),
            Some(_) => terminal.tell("please answer `rancher`, `direct`, `rke` or `manual`"),
        }
    }
}

/// Refuses options that mean nothing with the way that was chosen: who gives them believes that they do.
fn refuse_stray_options(options: &PlanOptions, via: Option<Via>) -> Result<(), Failure> {
    let DirectOptions { validity, kubelet_serving, replace_custom, then, accept_rancher_revert } =
        &options.direct;
    let given = [
        ("--validity", *validity != VALIDITY_DAYS),
        ("--kubelet-serving", *kubelet_serving),
        ("--replace-custom", *replace_custom),
        ("--then", then.is_some()),
        ("--accept-rancher-revert", *accept_rancher_revert),
    ];
    if options.rke.rke_binary.is_some() && via != Some(Via::Rke) {
        return Err(Failure::usage("`--rke-binary` belongs to `rotate --via rke`")
            .hint("drop it, or rotate with --via rke".to_owned()));
    }
    match given.iter().find(|(_, given)| *given && via != Some(Via::Direct)) {
        Some((option, _)) => Err(Failure::usage(format!("`{option}` belongs to `rotate --via direct`"))
            .hint("drop it, or rotate with --via direct".to_owned())),
        None => Ok(()),
    }
}

/// Returns what `--via direct` is told, with what rke left on this machine.
fn direct(settings: &Settings, options: &DirectOptions) -> Result<Direct, Failure> {
    let config = std::path::absolute(settings.config()).map_err(|error| Failure::new(FAILED, error))?;
    let config = if settings.config() == Path::new("-") { settings.config() } else { &config };
    let bastion = bastion_files(config).map_err(|error| {
        let hint = error.hint();
        Failure::new(USAGE, error).hint(hint.to_owned())
    })?;
    Ok(Direct {
        validity: SignedDuration::from_hours(24 * i64::from(options.validity)),
        kubelet_serving: if options.kubelet_serving { KubeletServing::Renewed } else { KubeletServing::Kept },
        custom: if options.replace_custom {
            CustomCertificates::Replaced
        } else {
            CustomCertificates::Refused
        },
        after: match (options.then, options.accept_rancher_revert) {
            (Some(ThenName::Rancher), _) => AfterDirect::Rancher,
            (None, true) => AfterDirect::RevertAccepted,
            (None, false) => AfterDirect::Nothing,
        },
        bastion,
    })
}

fn policy(
    settings: &Settings,
    options: &PlanOptions,
    loaded: &Loaded,
    via: Option<Via>,
    rancher: Option<RancherTarget>,
) -> Policy {
    let default_wait = if via == Some(Via::Manual) || via.is_none() { OPERATOR_WAIT } else { RANCHER_WAIT };
    let mut services = options.services.clone();
    services.sort_unstable();
    services.dedup();
    Policy {
        procedure: procedure(options),
        via,
        services,
        renew_within: SignedDuration::from_hours(24 * i64::from(options.renew_days)),
        renewal: if options.force { Renewal::All } else { Renewal::WhereNeeded },
        max_unavailable_worker: options.max_unavailable.unwrap_or(loaded.inventory.max_unavailable_worker),
        selected: loaded.selected.clone(),
        rancher,
        wait: options.wait.unwrap_or(default_wait),
        health_timeout: options.health_timeout,
        direct: None,
        rke: None,
        break_lock: None,
        majority: options.majority(),
        now: settings.clock.now(),
    }
}
