//! The simulated shell against the shell of the machine that runs the tests: the same scripts, the same answers.
#![expect(clippy::disallowed_methods, reason = "the comparison runs the real sh in a folder of its own")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::{Ended, Process, Source};
use crate::inventory::NodeName;
use crate::sim::authority::{Keys, Pair};
use crate::sim::clock::{Clock, EffectLog, lock};
use crate::sim::files::{Files, Owner};
use crate::sim::machine::{KubeletServing, Login, Machine, Privilege, SimNode, World};

fn node(privilege: Privilege) -> (Arc<World>, Arc<SimNode>) {
    let clock = Clock::new(Timestamp::from_second(1_795_000_000).unwrap(), 0.0);
    let log = Arc::new(EffectLog::new(clock));
    let name = NodeName::new("n1");
    let mut files = Files::new(name.clone(), clock, Arc::clone(&log));
    files.make_directories("/work").unwrap();
    files.set_mode(Owner::ROOT, "/work", 0o777).unwrap();
    let node = Arc::new(SimNode {
        name,
        roles: Vec::new(),
        address: "127.7.0.1".to_owned(),
        internal_address: "10.0.0.1".to_owned(),
        prefix: String::new(),
        docker_socket: "/var/run/docker.sock".to_owned(),
        login: Login::new("rancher", privilege),
        kubelet_serving: KubeletServing::Own,
        etcd_owner: None,
        machine: Mutex::new(Machine { files, containers: Vec::new() }),
        faults: Mutex::default(),
        reach: crate::sim::reach::Reach::default(),
    });
    let pair = Pair { certificate: String::new(), key: String::new() };
    (
        Arc::new(World::new(
            clock,
            log,
            vec![Arc::clone(&node)],
            (pair, Keys::default()),
            "v1.11.6-rancher1-1".to_owned(),
        )),
        node,
    )
}

fn simulated(script: &str, stdin: &str) -> Ended {
    let (world, node) = node(Privilege::Plain);
    let mut process = Process::login(&world, &node, Arc::default());
    "/work".clone_into(&mut process.folder);
    process.run_login(script, Source::of(stdin.as_bytes().to_vec())).unwrap()
}

fn real(script: &str, stdin: &str) -> Ended {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path())
        .env_clear()
        .envs(BTreeMap::from([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C")]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A script that reads nothing may have ended before.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended { status: output.status.code().unwrap(), stdout: output.stdout, stderr: output.stderr }
}

/// Scripts with what they read, separated so that they read like scripts.
const SCRIPTS: &[(&str, &str)] = &[
    ("echo one; printf '%s-%03d\\n' a 7 b 8; printf 'x%%\\n'", ""),
    ("a='b c'; echo $a \"$a\" '$a' ${a}d \"${a#b }\" \"${a%c}\" ${#a}", ""),
    ("f=/etc/kubernetes/ssl/kube-ca.pem; echo ${f##*/} ${f%/*} ${f%%/*}x ${f%.pem}-key.pem", ""),
    (
        "echo ${x:-d} ${x-e} \"${x:-a b}\" ${x:+no}; x=; echo [${x:-d}] [${x-e}]; x=1; echo ${x:+yes}; : ${y:=z}; echo $y",
        "",
    ),
    ("set -u; echo before; echo $nothing; echo after", ""),
    ("if false; then echo a; elif true; then echo b; else echo c; fi; echo $?", ""),
    ("for i in 1 2 3; do [ $i = 2 ] && continue; echo $i; done; while true; do break; done; echo done", ""),
    ("i=0; until [ $i -ge 3 ]; do i=$((i + 1)); done; echo $i $(( (i * 4 - 2) / 5 % 7 )) $((1 << 3))", ""),
    ("case abc in x|a*) echo hit;; *) echo miss;; esac; case '' in ?) echo one;; '') echo empty;; esac", ""),
    ("f() { echo \"$# $1 $2\"; return 3; echo no; }; f a 'b c'; echo $?", ""),
    ("set -- a 'b c' d; for x; do echo \"<$x>\"; done; shift; echo \"$@\" $# \"$*\"", ""),
    ("printf 'a b\\nc  d\\n' | while read -r x y; do echo \"$y|$x\"; done", ""),
    (
        "x=$(printf 'a b\\nc d\\n' | while read -r id name; do case $name in b|d) echo \"$name=$id\";; esac; done); echo \"$x\"",
        "",
    ),
    ("while IFS= read -r line; do printf '[%s]\\n' \"$line\"; done", " lead\ntail \\ \nlast"),
    ("while IFS=: read -r a b c; do echo \"$c-$b-$a\"; done", "1:2:3:4\nx::z\n"),
    ("cat <<E\nvalue $((1+1)) $(echo hi) \\$x\nE\ncat <<'E'\n$raw `x`\nE\ncat <<-E\n\tstripped\n\tE\n", ""),
    ("echo a > f; echo b >> f; cat f; cat < f | wc -l; wc -c < f; : > f; [ -s f ] || echo empty", ""),
    ("cat nothing 2>/dev/null; echo $?; { echo out; echo err >&2; } 2>&1 | sort", ""),
    ("set -C; echo a > f; (echo b > f) 2>/dev/null || echo refused; cat f", ""),
    ("touch b.x a.x; set -f; echo *.x; set +f; echo *.x; set -f; sh -c 'echo *.x'", ""),
    (
        "printf '1\\n2\\n3' > a; printf '4\\n' > b; head -n 2 a none b /dev/null 2>/dev/null; head -n 5 a b; head -q -n 1 a b; head -n 1 b",
        "",
    ),
    (
        "IFS='\n'; for line in $(printf 'a b\\n\\nc\\n'); do echo \"[$line]\"; done; set -f; x=$IFS'-n'$IFS'q r'; printf '<%s>' y$x",
        "",
    ),
    ("set -e; false || true; if false; then :; fi; ! true; echo here; false; echo never", ""),
    ("set -e; f() { false; echo in; }; if f; then echo yes; fi; f; echo never", ""),
    ("set -eu; x=$(false); echo never", ""),
    ("trap 'echo bye $?' EXIT; echo hi; exit 4", ""),
    ("(exit 3); echo $?; (trap 'echo inner' EXIT; true); x=1; (x=2; echo $x); echo $x", ""),
    (
        "mkdir -p a/b && cd a && pwd | sed 's/.*\\/\\(a\\)$/x/' | head -c 0; touch b/1.pem b/2.pem b/.h b/3.txt; echo b/*.pem b/* nomatch*",
        "",
    ),
    (
        "mkdir d; mkdir d 2>/dev/null; echo $?; mkdir -m 700 e; stat -c '%a %F %n' e; umask 077; mkdir g; : > h; stat -c '%a' g h",
        "",
    ),
    (
        "echo x > a; chmod 640 a; cp -p a b; stat -c '%a %s' b; cmp -s a b && echo same; echo y > b; cmp -s a b; echo $?",
        "",
    ),
    ("mkdir s; echo 1 > s/f; cp -r s t; cp -r s t; ls -1 t; ls -A t/s; cat t/s/f", ""),
    (
        "echo 1 > a; ln a b && echo linked; ln a b 2>/dev/null; echo $?; mv -f a b; ls; rm -f a nothing; rm b; ls -A",
        "",
    ),
    (
        "echo 1 > a; mkdir d; mv a d; ls d; mv d e; ls e; rmdir e 2>/dev/null; echo $?; rm -r e; [ -e e ] || echo gone",
        "",
    ),
    (
        "mkdir -p k/ssl k/old; echo c > k/ssl/a.pem; chmod 600 k/ssl/a.pem; echo d > k/old/b; tar -cpf x.tar --exclude=old -C . k && tar -tf x.tar; mkdir o; tar -xpf x.tar -C o; stat -c '%a %n' o/k/ssl/a.pem; cat o/k/ssl/a.pem",
        "",
    ),
    (
        "mkdir -p k; echo c > k/a; tar -C k -cf - . | tar -tf - | sort; tar -C k -cf - a | (mkdir z; cd z; tar -xf -; cat a)",
        "",
    ),
    (
        "mkdir -p f/g; : > f/a.pem; : > f/g/b.pem; : > f/c; find f -type f -name '*.pem' | sort; find f -maxdepth 1 -type f | sort; find f -type d; find f -path f/g -prune -o -type f -print | sort",
        "",
    ),
    (
        "printf 'b\\na\\nb\\n' | sort -u; printf 'b\\na\\n' | sort | uniq -c | sed 's/^ *//'; printf 'a:b:c\\nx\\n' | cut -d: -f2-; echo abcdef | cut -c 2-4",
        "",
    ),
    (
        "printf 'one\\ntwo\\nthree\\n' | grep -c o; printf 'one\\ntwo\\n' | grep -vn one; echo a.b | grep -qF a.b && echo yes; echo axb | grep -F a.b || echo no; echo foo12 | grep -E '^(foo|bar)[0-9]+$'",
        "",
    ),
    (
        "printf '1\\n2\\n3\\n4\\n' | sed -n 2,3p; printf '1\\n2\\n3\\n' | sed 2d; printf '1\\n2\\n3\\n' | sed 2q; echo a/b/a | sed 's/a/x/g'; echo a/b | sed 's|/|-|'; printf 'k=v\\n' | sed -n 's/^k=//p'",
        "",
    ),
    (
        "printf '1\\n2\\n3\\n' | head -n 2; printf '1\\n2\\n3\\n' | tail -n 1; printf '1\\n2\\n3\\n' | tail -n +2; echo abc | head -c 2; echo; echo aBc | tr a-z A-Z; echo 'a  b' | tr -s ' '; echo a1b | tr -d 0-9",
        "",
    ),
    (
        "echo hello | sha256sum | cut -c 1-16; basename /a/b.pem .pem; dirname /a/b; dirname c; echo 'a\\tb'",
        "",
    ),
    (
        "[ a = a -a b != c ] && echo and; [ -z '' ] && [ -n x ] && ! [ 1 -gt 2 ] && echo ok; test -d . && echo dir; [ ! -e nothing ] && echo none",
        "",
    ),
    (
        "command -v cat >/dev/null && echo has; command -v no-such-tool >/dev/null || echo lacks; no-such-tool 2>/dev/null; echo $?",
        "",
    ),
    (
        "sh -c 'echo \"$0 $1 $#\"' name 'a b' c; x=1 sh -c 'echo ${x:-unset}'; x=2; sh -c 'echo ${x:-unset}'; export x; sh -c 'echo $x'",
        "",
    ),
    ("true && { echo a; false; } || echo b; ! false && echo c; echo a | { read -r x; echo \"got $x\"; }", ""),
    (
        "x=$(printf 'a\\n\\n'); echo \"[$x]\"; y=\"$(echo \"in $(echo deep)\")\"; echo \"$y\"; echo \"quote \\\" \\\\ \\$\"",
        "",
    ),
    ("exec 2>/dev/null; echo visible; cat nothing; echo $?", ""),
    ("head -c 5 > first; cat > rest; cat first; echo; cat rest", "hello world\n"),
    ("n=0; while [ $n -lt 3 ]; do n=$((n+1)); echo $n; done > out; cat out | tr '\\n' ' '; echo", ""),
    ("echo 'unterminated", ""),
    ("if true; then echo a", ""),
    ("a=1; b=$a$a; echo $b; readonly c=3; echo $c; unset a; echo ${a-unset}", ""),
    // What a switch of files leans on: which of owner, mode and time survive.
    (
        "umask 022; echo old > a; chmod 640 a; touch -d @1000 a; cp -p a b; stat -c '%a %Y %s' b; cp a c; stat -c '%a' c; [ \"$(stat -c %Y c)\" -gt 1000 ] && echo fresh",
        "",
    ),
    (
        "umask 022; echo new > a; echo old > b; chmod 640 b; touch -d @1000 b; cat a >b; stat -c '%a' b; cat b; [ \"$(stat -c %Y b)\" -gt 1000 ] && echo fresh",
        "",
    ),
    (
        "echo x > a; chmod 604 a; touch -d @1000 a; mv -f a b; stat -c '%a %Y' b; echo y > c; touch -d @2000 c; mv -f b c; stat -c '%a %Y' c; [ -e b ] || echo gone; cp -p c d && mv -f d e && cmp c e && echo same",
        "",
    ),
    (
        "echo x > a; touch -d @1000 a; cp -p a b; echo longer > b; cp -p a b; stat -c '%Y %s' b; chmod 400 b; mv -f b a; stat -c %a a",
        "",
    ),
    ("echo 1 > a; echo 2 > b; cmp a b; echo $?; cmp a missing 2>/dev/null; echo $?; cmp -s a a; echo $?", ""),
    (
        "mkdir -p s/d o; echo x > s/d/f; chmod 640 s/d/f; touch -d @1000 s/d/f; chmod 750 s/d; tar -C s -cf - d | tar -C o -xpf -; stat -c '%a %n' o/d; stat -c '%a %Y %n' o/d/f; cat o/d/f; tar -C s -cf - d/f d | tar -tf - | sort -u",
        "",
    ),
    (
        "tar -C missing -cf - a 2>/dev/null; echo $?; tar -cf - missing 2>/dev/null >/dev/null; echo $?; printf x | tar -xf - 2>/dev/null; echo $?",
        "",
    ),
    (
        "set -eu; switch() { [ -e \"$1\" ] || return 3; cp -p \"$1\" \"$2.new\"; mv -f \"$2.new\" \"$2\"; }; trap 'rm -rf w; echo left $?' EXIT; mkdir -p w; echo a > w/a; switch w/a b; sync; ls; switch w/none c; echo never",
        "",
    ),
    ("set -u; trap 'echo bye' EXIT; echo \"${nothing}\"; echo never", ""),
    (
        "mkdir -p f/g; echo 1 > f/a; echo 2 > f/g/b; ln f/a f/c; stat -c '%h %F' f/c; find f -type f | sort; find f/g f/a -type f; rm -rf f none; [ ! -e f ] && echo gone; ln none x 2>/dev/null || echo no",
        "",
    ),
    ("f='a b'; touch \"$f\"; for x in *; do echo \"<$x>\"; done; rm -f -- \"$f\"; ls", ""),
];

#[test]
fn scripts_behave_as_in_the_shell_of_this_machine() {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // The words of error messages differ between shells; whether there is one does not.
    let shown = |ended: &Ended| (ended.status, text(&ended.stdout), ended.stderr.is_empty());
    let mut differences = Vec::new();
    for (script, stdin) in SCRIPTS {
        let (simulated, real) = (simulated(script, stdin), real(script, stdin));
        if shown(&simulated) != shown(&real) {
            differences.push(format!(
                "{script}\n  simulated {:?}\n  real      {:?}\n",
                shown(&simulated),
                shown(&real)
            ));
            differences.push(format!("  stderr {} / {}\n", text(&simulated.stderr), text(&real.stderr)));
        }
    }
    assert!(differences.is_empty(), "{}", differences.concat());
}

#[test]
fn what_is_not_simulated_says_so() {
    for (script, status) in
        [("sleep 1 &", 2), ("echo `date`", 2), ("ls -Z", 2), ("sed 'y/a/b/'", 2), ("set -o pipefail", 2)]
    {
        let ended = simulated(script, "");
        assert_eq!(ended.status, status, "{script}");
        assert!(!ended.stderr.is_empty(), "{script}");
    }
    assert_eq!(simulated("getfacl /", "").status, 127);
}

#[test]
fn a_user_who_is_not_root_cannot_read_the_files_of_root() {
    let (world, node) = node(Privilege::Docker);
    let attributes =
        crate::sim::files::Attributes { mode: 0o600, owner: Owner::ROOT, modified: Timestamp::UNIX_EPOCH };
    lock(&node.machine).files.install("/etc/secret", b"key\n", attributes).unwrap();
    let run = |script: &str| {
        let process = Process::login(&world, &node, Arc::default());
        process.run_login(script, Source::default()).unwrap()
    };
    let read = run("cat /etc/secret");
    assert_eq!((read.status, read.stdout.len()), (1, 0));
    assert!(String::from_utf8_lossy(&read.stderr).contains("Permission denied"));
    assert_eq!(run("sudo -n cat /etc/secret").status, 1);
    assert_eq!(run("echo x > /etc/new").status, 2);
    assert_eq!(run("rm -f /etc/secret").status, 1);
}

#[test]
fn owner_and_time_survive_what_root_copies_and_moves() {
    let (world, node) = node(Privilege::Root);
    let attributes = crate::sim::files::Attributes {
        mode: 0o640,
        owner: Owner { uid: 52034, gid: 52035 },
        modified: Timestamp::from_second(1000).unwrap(),
    };
    lock(&node.machine).files.install("/ssl/a.pem", b"old\n", attributes).unwrap();
    let run = |script: &str, stdin: &[u8]| {
        let process = Process::login(&world, &node, Arc::default());
        let ended = process.run_login(script, Source::of(stdin.to_vec())).unwrap();
        assert_eq!((ended.status, ended.stderr), (0, Vec::new()), "{script}");
        ended.stdout
    };
    let all = "stat -c '%a %u:%g %Y' /ssl/b.pem";
    assert_eq!(run(&format!("cp -p /ssl/a.pem /ssl/b.pem; {all}"), b""), b"640 52034:52035 1000\n");
    assert_eq!(run("cat > /ssl/b.pem; stat -c '%a %u:%g %s' /ssl/b.pem", b"new"), b"640 52034:52035 3\n");
    assert_eq!(run("[ $(stat -c %Y /ssl/b.pem) -gt 1000 ]; mv -f /ssl/a.pem /ssl/b.pem", b""), b"");
    assert_eq!(run(all, b""), b"640 52034:52035 1000\n");
    let archive = run("tar -C /ssl -cf - b.pem", b"");
    assert_eq!(
        run("mkdir -p /in; tar -C /in -xpf -; stat -c '%a %u:%g %Y' /in/b.pem", &archive),
        b"640 52034:52035 1000\n"
    );
    assert_eq!(run("chown 0:0 /in/b.pem; stat -c '%a %u:%g %Y' /in/b.pem", b""), b"640 0:0 1000\n");
}

#[test]
fn an_endless_loop_ends() {
    let (world, node) = node(Privilege::Root);
    let process = Process::login(&world, &node, Arc::default());
    assert_eq!(process.run_login("while :; do :; done", Source::default()), None);
}

#[test]
fn a_sleep_shows_in_the_time_of_the_script_alone() {
    let ended = simulated("a=$(date +%s); sleep 30; b=$(date +%s); echo $((b - a))", "");
    assert_eq!(ended.stdout, b"30\n");
}
