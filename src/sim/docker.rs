//! `docker` on a simulated node, as far as a rotation asks for it.

use serde_json::{Value, json};

use super::Fault;
use super::clock::lock;
use super::container::{Component, State, digest, image_id};
use super::files::Owner;
use super::machine::Privilege;
use super::shell::{Process, Unwind};
use super::template::Template;

/// The version that every simulated node runs.
const VERSION: &str = "18.09.9";

/// What Rancher's agent says when it has lost its connection.
const AGENT_DISCONNECTED: &str = "time=\"2026-11-21T18:52:40Z\" level=error msg=\"Failed to connect to proxy\" error=\"websocket: bad handshake\"";

/// Runs `docker`.
pub(crate) fn docker(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let mut rest = arguments;
    let mut host = process.variable("DOCKER_HOST").map(str::to_owned);
    while let Some((option, after)) = rest.split_first().filter(|(first, _)| first.starts_with('-')) {
        match (option.as_str(), after.split_first()) {
            ("-H" | "--host", Some((value, after))) => {
                host = Some(value.clone());
                rest = after;
            }
            _ => return Ok(process.fail(125, &format!("unknown flag: {option}"))),
        }
    }
    let Some((command, rest)) = rest.split_first() else {
        return Ok(process.fail(2, "Usage:  docker [OPTIONS] COMMAND"));
    };
    let command = if command == "container" { rest.first().map_or("", String::as_str) } else { command };
    let rest = if arguments.first().is_some_and(|first| first == "container") {
        rest.get(1..).unwrap_or_default()
    } else {
        rest
    };
    if let Some(status) = refusal(process, host.as_deref()) {
        return Ok(status);
    }
    process.world.settle();
    match command {
        "version" => Ok(version(process, rest)),
        "info" => Ok(info(process, rest)),
        "ps" => Ok(list(process, rest)),
        "inspect" => Ok(inspect(process, rest)),
        "restart" | "start" | "stop" => change(process, command, rest),
        "exec" => exec(process, rest),
        "logs" => Ok(logs(process, rest)),
        "images" => Ok(images(process, rest)),
        "run" => run(process, rest),
        other => Ok(process.fail(1, &format!("docker: '{other}' is not a docker command that is simulated"))),
    }
}

/// Says why the daemon cannot be reached, if so.
fn refusal(process: &mut Process, host: Option<&str>) -> Option<i32> {
    let socket = host.unwrap_or("unix:///var/run/docker.sock").to_owned();
    if socket.strip_prefix("unix://") != Some(process.node.docker_socket.as_str()) {
        return Some(process.fail(
            1,
            &format!("Cannot connect to the Docker daemon at {socket}. Is the docker daemon running?"),
        ));
    }
    if lock(&process.node.faults).contains(&Fault::DockerGone) {
        return Some(process.fail(
            1,
            &format!("Cannot connect to the Docker daemon at {socket}. Is the docker daemon running?"),
        ));
    }
    let denied = lock(&process.node.faults).contains(&Fault::PermissionDenied);
    let member = process.node.login.privilege == Privilege::Docker && !denied;
    let allowed = process.who.is_root() || member;
    let message = "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: \
                   dial unix /var/run/docker.sock: connect: permission denied";
    (!allowed).then(|| process.fail(1, message))
}

/// Options of a docker command: those with a value, by name, and the words.
#[derive(Debug, Default)]
struct Options {
    values: Vec<(String, String)>,
    flags: Vec<String>,
    words: Vec<String>,
}

impl Options {
    /// Reads options up to the first word, or among all words where `everywhere`.
    fn parse(arguments: &[String], valued: &[&str], flags: &[&str], order: Order) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let ended = order == Order::OptionsFirst && !options.words.is_empty();
            if ended || !argument.starts_with('-') || argument == "-" {
                options.words.push(argument.clone());
                continue;
            }
            let (name, value) = argument
                .split_once('=')
                .map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
            if valued.contains(&name) {
                let value = value.or_else(|| rest.next().map(String::as_str));
                let value = value.ok_or_else(|| format!("flag needs an argument: {name}"))?;
                options.values.push((name.to_owned(), value.to_owned()));
            } else if flags.contains(&name) {
                options.flags.push(name.to_owned());
            } else {
                return Err(format!("unknown flag: {name}"));
            }
        }
        Ok(options)
    }

    fn value(&self, names: &[&str]) -> Option<&str> {
        self.values.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value.as_str())
    }

    fn has(&self, names: &[&str]) -> bool {
        self.flags.iter().any(|flag| names.contains(&flag.as_str()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Mixed,
    OptionsFirst,
}

fn print(process: &mut Process, format: &str, value: &Value) -> i32 {
    match Template::parse(format).and_then(|template| template.fill(value)) {
        Ok(line) => {
            process.put_line(&line);
            0
        }
        Err(message) => process.fail(1, &message),
    }
}

fn version(process: &mut Process, arguments: &[String]) -> i32 {
    match Options::parse(arguments, &["--format", "-f"], &[], Order::Mixed) {
        Err(message) => process.fail(125, &message),
        Ok(options) => {
            let value = json!({ "Client": { "Version": VERSION }, "Server": { "Version": VERSION, "ApiVersion": "1.39", "Os": "linux", "Arch": "amd64" } });
            let default = "Client:\n Version: {{.Client.Version}}\nServer:\n Version: {{.Server.Version}}";
            print(process, options.value(&["--format", "-f"]).unwrap_or(default), &value)
        }
    }
}

fn info(process: &mut Process, arguments: &[String]) -> i32 {
    let options = match Options::parse(arguments, &["--format", "-f"], &[], Order::Mixed) {
        Ok(options) => options,
        Err(message) => return process.fail(125, &message),
    };
    let machine = lock(&process.node.machine);
    let running = machine.containers.iter().filter(|container| container.state == State::Running).count();
    let all = machine.containers.len();
    drop(machine);
    let value = json!({
        "Containers": all, "ContainersRunning": running, "ContainersStopped": all - running, "ContainersPaused": 0,
        "Driver": "overlay2", "ServerVersion": VERSION, "OperatingSystem": "Ubuntu 18.04.3 LTS", "OSType": "linux",
        "KernelVersion": "4.15.0-1054", "Architecture": "x86_64", "NCPU": 2, "MemTotal": 8_363_429_888_u64,
        "DockerRootDir": "/var/lib/docker", "Name": process.node.name.as_str(), "SecurityOptions": ["name=seccomp,profile=default"],
    });
    let default = "Containers: {{.Containers}}\nServer Version: {{.ServerVersion}}\nOperating System: {{.OperatingSystem}}";
    print(process, options.value(&["--format", "-f"]).unwrap_or(default), &value)
}

fn list(process: &mut Process, arguments: &[String]) -> i32 {
    let valued = ["--format", "--filter", "-f"];
    let flags = ["-a", "--all", "--no-trunc", "-q", "--quiet", "-aq", "-qa"];
    let options = match Options::parse(arguments, &valued, &flags, Order::Mixed) {
        Ok(options) => options,
        Err(message) => return process.fail(125, &message),
    };
    let every = options.has(&["-a", "--all", "-aq", "-qa"]);
    let quiet = options.has(&["-q", "--quiet", "-aq", "-qa"]);
    let id_length = if options.has(&["--no-trunc"]) { 64 } else { 12 };
    let containers = lock(&process.node.machine).containers.clone();
    let default = if quiet { "{{.ID}}" } else { "{{.ID}}   {{.Image}}   {{.Status}}   {{.Names}}" };
    // `docker ps` reads `\t` and `\n` in a format; `docker inspect` does not.
    let format = options.value(&["--format"]).unwrap_or(default).replace("\\t", "\t").replace("\\n", "\n");
    for container in containers {
        let active = matches!(container.state, State::Running | State::Restarting);
        let mut row = container.row(id_length);
        let mut wanted = every || active;
        for (_, filter) in options.values.iter().filter(|(name, _)| name != "--format") {
            wanted &= match filter.split_once('=') {
                Some(("name", part)) => {
                    container.name.contains(part.trim_start_matches(['^', '/']).trim_end_matches('$'))
                }
                Some(("status", state)) => container.state.as_str() == state,
                Some(("label", label)) => label.split_once('=').map_or_else(
                    || container.labels.contains_key(label),
                    |(name, value)| container.labels.get(name).is_some_and(|found| found == value),
                ),
                _ => {
                    return process
                        .fail(1, &format!("Error response from daemon: Invalid filter '{filter}'"));
                }
            };
        }
        if !wanted {
            continue;
        }
        let status = if format == "json" || format == "{{json .}}" {
            process.put_line(&row.take().to_string());
            0
        } else {
            print(process, &format, &row)
        };
        if status != 0 {
            return status;
        }
    }
    0
}

fn inspect(process: &mut Process, arguments: &[String]) -> i32 {
    let options = match Options::parse(arguments, &["--format", "-f", "--type"], &[], Order::Mixed) {
        Ok(options) => options,
        Err(message) => return process.fail(125, &message),
    };
    let mut status = 0;
    let mut all = Vec::new();
    for name in &options.words {
        let mut found = lock(&process.node.machine).container(name).map(super::container::Container::inspect);
        if found.is_none() {
            let images = lock(&process.node.machine)
                .containers
                .iter()
                .map(|container| container.image.clone())
                .collect::<Vec<_>>();
            let image = images.into_iter().find(|image| {
                image == name
                    || image_id(image)
                        .trim_start_matches("sha256:")
                        .starts_with(name.trim_start_matches("sha256:"))
            });
            found = image.map(|image| json!({ "Id": image_id(&image), "RepoTags": [image], "Os": "linux", "Architecture": "amd64" }));
        }
        match (found, options.value(&["--format", "-f"])) {
            (None, _) => status = process.fail(1, &format!("Error: No such object: {name}")),
            (Some(value), Some(format)) => status = status.max(print(process, format, &value)),
            (Some(value), None) => all.push(value),
        }
    }
    if options.value(&["--format", "-f"]).is_none() {
        process.put_line(&serde_json::to_string_pretty(&all).unwrap_or_default());
    }
    status
}

fn change(process: &mut Process, command: &str, arguments: &[String]) -> Result<i32, Unwind> {
    let options = match Options::parse(arguments, &["-t", "--time"], &[], Order::Mixed) {
        Ok(options) => options,
        Err(message) => return Ok(process.fail(125, &message)),
    };
    let mut status = 0;
    for name in &options.words {
        if lock(&process.node.machine).container(name).is_some() {
            process.announce()?;
        }
        let (world, node) = (&process.world, &process.node);
        let exists = match command {
            "stop" => world.stop(node, name),
            verb => world.start(node, name, verb),
        };
        if exists {
            process.put_line(name);
        } else {
            status = process.fail(1, &format!("Error response from daemon: No such container: {name}"));
        }
    }
    Ok(status)
}

fn exec(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let options = match Options::parse(
        arguments,
        &["-e", "-u", "--user", "-w"],
        &["-i", "-t", "-it"],
        Order::OptionsFirst,
    ) {
        Ok(options) => options,
        Err(message) => return Ok(process.fail(125, &message)),
    };
    let Some((name, command)) = options.words.split_first() else {
        return Ok(process.fail(1, "\"docker exec\" requires at least 2 arguments."));
    };
    let found = lock(&process.node.machine)
        .container(name)
        .map(|container| (container.name.clone(), container.state, container.id.clone()));
    let Some((name, state, id)) = found else {
        return Ok(process.fail(1, &format!("Error: No such container: {name}")));
    };
    if state != State::Running {
        return Ok(process.fail(1, &format!("Error response from daemon: Container {id} is not running")));
    }
    let mut child = process.child(Owner::ROOT, &[]);
    child.container = Some(name);
    "/".clone_into(&mut child.folder);
    if !options.has(&["-i", "-it"]) {
        child.stdin = super::shell::Source::default();
    }
    child.execute(command)
}

fn logs(process: &mut Process, arguments: &[String]) -> i32 {
    let valued = ["--tail", "-n", "--since", "--until"];
    let options = match Options::parse(arguments, &valued, &["-t", "--timestamps"], Order::Mixed) {
        Ok(options) => options,
        Err(message) => return process.fail(125, &message),
    };
    let name = options.words.first().map_or("", String::as_str);
    let found = lock(&process.node.machine).container(name).map(|found| (found.component, found.log.clone()));
    let Some((component, mut lines)) = found else {
        return process.fail(1, &format!("Error: No such container: {name}"));
    };
    if component == Component::Agent && lock(&process.node.faults).contains(&Fault::AgentDisconnected) {
        lines.push(AGENT_DISCONNECTED.to_owned());
    }
    let tail = options.value(&["--tail", "-n"]).and_then(|count| count.parse().ok()).unwrap_or(lines.len());
    let skipped = lines.len().saturating_sub(tail);
    for line in lines.iter().skip(skipped) {
        // Components of Kubernetes and Rancher's agent log to stderr.
        process.complain(line);
    }
    0
}

fn images(process: &mut Process, arguments: &[String]) -> i32 {
    let flags = ["-q", "--quiet", "--no-trunc", "-a"];
    let options = match Options::parse(arguments, &["--format", "--filter"], &flags, Order::Mixed) {
        Ok(options) => options,
        Err(message) => return process.fail(125, &message),
    };
    let mut images: Vec<String> =
        lock(&process.node.machine).containers.iter().map(|container| container.image.clone()).collect();
    images.sort();
    images.dedup();
    for image in images
        .iter()
        .filter(|image| options.words.is_empty() || options.words.iter().any(|word| image.starts_with(word)))
    {
        let (repository, tag) = image.split_once(':').unwrap_or((image, "latest"));
        let id = if options.has(&["--no-trunc"]) {
            image_id(image)
        } else {
            digest(image).chars().take(12).collect()
        };
        let default =
            if options.has(&["-q", "--quiet"]) { "{{.ID}}" } else { "{{.Repository}}   {{.Tag}}   {{.ID}}" };
        let format = options.value(&["--format"]).unwrap_or(default).replace("\\t", "\t");
        let status = print(process, &format, &json!({ "ID": id, "Repository": repository, "Tag": tag }));
        if status != 0 {
            return status;
        }
    }
    0
}

/// `docker run --rm -v /:/host --entrypoint chroot IMAGE /host COMMAND`: root on the node.
fn run(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let valued = [
        "--network",
        "--net",
        "--userns",
        "--security-opt",
        "-v",
        "--volume",
        "--entrypoint",
        "--pid",
        "-e",
        "--user",
        "-u",
    ];
    let options =
        match Options::parse(arguments, &valued, &["--rm", "-i", "--privileged"], Order::OptionsFirst) {
            Ok(options) => options,
            Err(message) => return Ok(process.fail(125, &message)),
        };
    let (image, command) =
        options.words.split_first().map_or(("", &[][..]), |(image, command)| (image.as_str(), command));
    let known = |name: &str| {
        let id = image_id(name);
        image == name
            || (image.len() >= 6
                && (id.starts_with(image) || id.trim_start_matches("sha256:").starts_with(image)))
    };
    if !lock(&process.node.machine).containers.iter().any(|container| known(&container.image)) {
        return Ok(process.fail(125, &format!("Unable to find image '{image}' locally\ndocker: Error response from daemon: pull access denied for {image}")));
    }
    let mounts_host = options
        .values
        .iter()
        .any(|(name, value)| matches!(name.as_str(), "-v" | "--volume") && value.starts_with("/:/host"));
    match command.split_first() {
        Some((root, command)) if root == "/host" && mounts_host && options.value(&["--entrypoint"]) == Some("chroot") => {
            let mut child = process.child(Owner::ROOT, &[]);
            child.variables_of_container();
            // It writes to docker's daemon, whoever reads there.
            child.detach();
            "/".clone_into(&mut child.folder);
            if !options.has(&["-i"]) {
                child.stdin = super::shell::Source::default();
            }
            child.execute(command)
        }
        _ => Ok(process.fail(125, "docker: only a chroot into /host is simulated: -v /:/host --entrypoint chroot IMAGE /host COMMAND")),
    }
}
