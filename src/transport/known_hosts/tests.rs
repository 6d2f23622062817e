//! The format of known_hosts, line by line.

use proptest::prelude::*;

use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";

fn key(line: &str) -> PublicKey {
    line.parse().unwrap()
}

fn verdict(text: &str, host: &str, port: u16) -> Verdict {
    let mut known = KnownHosts::default();
    known.extend(Path::new("known_hosts"), text);
    known.verdict(&Endpoint::new(host, port), &key(ED25519))
}

fn place(line: usize) -> Place {
    Place { file: PathBuf::from("known_hosts"), line }
}

#[test]
fn names_patterns_and_ports_are_matched_as_openssh_does() {
    // `ssh-keygen -H` made the hash of "node-1".
    let cases: &[(&str, &str, u16, bool)] = &[
        ("node-1", "node-1", 22, true),
        ("node-1", "NODE-1", 22, true),
        ("Node-1", "node-1", 22, true),
        ("node-1,10.0.0.1", "10.0.0.1", 22, true),
        ("node-?", "node-1", 22, true),
        ("node-?", "node-10", 22, false),
        ("*.example.com", "a.b.example.com", 22, true),
        ("*.example.com", "example.com", 22, false),
        ("*.example.com,!bad.example.com", "bad.example.com", 22, false),
        ("!bad.example.com,*.example.com", "good.example.com", 22, true),
        ("!node-1", "node-2", 22, false),
        ("[node-1]:2222", "node-1", 2222, true),
        ("[node-1]:2222", "node-1", 22, false),
        ("[node-1]:2222", "node-1", 2223, false),
        ("[*]:2222", "node-1", 2222, true),
        ("node-1", "node-1", 2222, true),
        ("2001:db8::1", "2001:db8::1", 22, true),
        ("[2001:db8::1]:2222", "2001:db8::1", 2222, true),
        ("*", "anything", 22, true),
        ("", "node-1", 22, false),
    ];
    for (hosts, host, port, expected) in cases {
        let found = verdict(&format!("{hosts} {ED25519} a comment\n"), host, *port);
        assert_eq!(found == Verdict::Known, *expected, "`{hosts}` and {host}:{port}: {found:?}");
    }
}

#[test]
fn hashed_names_are_matched() {
    let hashed = |name: &str, salt: &[u8]| {
        let code = Hmac::<Sha1>::new_from_slice(salt).unwrap().chain_update(name).finalize().into_bytes();
        format!("|1|{}|{} {ED25519}", STANDARD.encode(salt), STANDARD.encode(code))
    };
    let text = hashed("node-1", b"01234567890123456789") + "\n" + &hashed("[node-2]:2222", b"another");
    assert_eq!(verdict(&text, "node-1", 22), Verdict::Known);
    assert_eq!(verdict(&text, "node-2", 2222), Verdict::Known);
    assert_eq!(verdict(&text, "node-2", 22), Verdict::Unknown { authority: None });
    // From the manual page of sshd(8).
    let manual = "|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= ssh-rsa AAAA1234.....=";
    assert_eq!(verdict(manual, "node-1", 22), Verdict::Unknown { authority: None });
}

#[test]
fn the_hash_of_ssh_keygen_is_understood() {
    let hosts = Hosts::parse("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=").unwrap();
    assert!(hosts.matches("192.168.1.61"));
    assert!(!hosts.matches("192.168.1.62"));
}

#[test]
fn white_space_comments_and_nonsense_are_passed_over() {
    for text in [
        format!("node-1\t{ED25519}"),
        format!("  node-1   {ED25519}\r\n"),
        format!("# a comment\n\n#node-1 {OTHER}\nnode-1 {ED25519}"),
        format!("node-1\nnode-1 ssh-ed25519\nnode-1 ssh-ed25519 ????\nnode-1 1024 35 1234\nnode-1 {ED25519}"),
        format!("@unheard-of node-1 {OTHER}\nnode-1 {ED25519}"),
        format!("|2|x|y {OTHER}\n|1|x {OTHER}\nnode-1 {ED25519}"),
    ] {
        assert_eq!(verdict(&text, "node-1", 22), Verdict::Known, "{text}");
    }
}

#[test]
fn a_changed_key_is_told_with_its_line_and_the_same_kind_first() {
    let changed = |line, algorithm| Verdict::Changed { place: place(line), algorithm };
    assert_eq!(verdict(&format!("\nnode-1 {OTHER}"), "node-1", 22), changed(2, Algorithm::Ed25519));
    assert_eq!(
        verdict(&format!("node-1 {ECDSA}\nnode-1 {OTHER}"), "node-1", 22),
        changed(2, Algorithm::Ed25519)
    );
    assert_eq!(
        verdict(&format!("node-1 {ECDSA}"), "node-1", 22),
        changed(1, Algorithm::Ecdsa { curve: russh::keys::EcdsaCurve::NistP256 })
    );
    // Any of several keys will do.
    assert_eq!(verdict(&format!("node-1 {OTHER}\nnode-1 {ED25519}"), "node-1", 22), Verdict::Known);
    // The sshd of another port is another one.
    assert_eq!(verdict(&format!("node-1 {OTHER}"), "node-1", 2222), Verdict::Unknown { authority: None });
}

#[test]
fn what_is_known_of_a_port_outweighs_what_is_known_of_the_bare_name() {
    let text = format!("node-1 {ED25519}\n[node-1]:2222 {OTHER}\n");
    assert_eq!(verdict(&text, "node-1", 22), Verdict::Known);
    let changed = Verdict::Changed { place: place(2), algorithm: Algorithm::Ed25519 };
    assert_eq!(verdict(&text, "node-1", 2222), changed);
    assert_eq!(verdict(&text, "node-1", 2223), Verdict::Known, "nothing else is known of that port");

    let authorities = format!("@cert-authority node-1 {ED25519}\n@cert-authority [node-1]:2222 {OTHER}\n");
    let mut known = KnownHosts::default();
    known.extend(Path::new("known_hosts"), &authorities);
    let authority = |port, line: &str| {
        known.authority(&Endpoint::new("node-1", port), key(line).key_data()).map(|place| place.line)
    };
    assert_eq!((authority(2222, ED25519), authority(2222, OTHER)), (None, Some(2)));
    assert_eq!((authority(2223, ED25519), authority(2223, OTHER)), (Some(1), None));
}

#[test]
fn markers_are_heeded() {
    let revoked = format!("node-1 {ED25519}\n@revoked * {ED25519}\n");
    assert_eq!(verdict(&revoked, "node-1", 22), Verdict::Revoked { place: place(2) });
    let other_revoked = format!("node-1 {ED25519}\n@revoked * {OTHER}\n");
    assert_eq!(verdict(&other_revoked, "node-1", 22), Verdict::Known);
    let authority = format!("@cert-authority *.example.com {ED25519}\n");
    assert_eq!(
        verdict(&authority, "a.example.com", 22),
        Verdict::Unknown { authority: Some(place(1)) },
        "an authority's key is not the host's"
    );
}

#[test]
fn the_known_kinds_come_in_their_order() {
    let mut known = KnownHosts::default();
    known
        .extend(Path::new("a"), &format!("node-1 {ED25519}\n[node-1]:2222 {ECDSA}\n@revoked node-1 {OTHER}"));
    known.extend(Path::new("b"), &format!("other {ED25519}"));
    let kinds: Vec<String> =
        known.algorithms(&Endpoint::new("node-1", 2222)).iter().map(ToString::to_string).collect();
    assert_eq!(kinds, ["ecdsa-sha2-nistp256", "ssh-ed25519"]);
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), host in any::<String>(), port in any::<u16>()) {
        verdict(&text, &host, port);
    }

    #[test]
    fn no_line_panics(
        words in proptest::collection::vec(
            prop_oneof![
                Just("@revoked".to_owned()), Just("|1|".to_owned()), Just(ED25519.to_owned()), Just("\n".to_owned()),
                "[a-c*?!,|\\[\\]:=]{0,8}", "[A-Za-z0-9+/=]{0,60}",
            ],
            0..20,
        ),
        host in "[a-c]{0,4}",
    ) {
        verdict(&words.join(" "), &host, 22);
    }

    #[test]
    fn a_star_matches_what_a_search_would(parts in proptest::collection::vec("[ab]{0,2}", 1..5), name in "[ab]{0,8}") {
        let pattern = parts.join("*");
        let found = matches_pattern(pattern.as_bytes(), name.as_bytes());
        let globbed = globset::Glob::new(&pattern).unwrap().compile_matcher().is_match(&name);
        prop_assert_eq!(found, globbed, "{} {}", pattern, name);
    }
}
