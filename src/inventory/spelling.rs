//! Finds the word that was meant by one that nobody knows.
//!
//! The hints for unknown keys and roles come from here.

/// The longest word that is compared: the effort grows with its length, and no key has half of it.
const LONGEST: usize = 64;

/// Words that are farther from the right key than a slip of the pen.
const MISNOMERS: [(&str, &str); 10] = [
    ("host", "address"),
    ("ip", "address"),
    ("hostname", "hostname_override"),
    ("name", "hostname_override"),
    ("private_ip", "internal_address"),
    ("ssh_user", "user"),
    ("ssh_port", "port"),
    ("bastion", "bastion_host"),
    ("auth", "authentication"),
    ("pod-infra-container-image", "infra_container_image"),
];

/// Returns the key that was probably meant.
pub(super) fn meant<'a>(key: &str, keys: &[&'a str]) -> Option<&'a str> {
    let key = snake_case(key);
    let named = MISNOMERS.iter().find(|(wrong, right)| *wrong == key && keys.contains(right));
    match named {
        Some((_, right)) => keys.iter().find(|candidate| *candidate == right).copied(),
        None => closest(&key, keys.iter().copied()),
    }
}

/// Returns the candidate that differs from a word by a slip or two.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let allowed = (word.chars().count() / 4).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&simplified(word), &simplified(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns a word without what people mix up most.
fn simplified(word: &str) -> String {
    word.to_lowercase().replace(['-', ' '], "_")
}

/// Returns a camelCase name, as Rancher's API has them, in the way of the file.
fn snake_case(key: &str) -> String {
    let mut name = String::new();
    let mut after_small = false;
    for character in key.chars() {
        if character.is_ascii_uppercase() && after_small {
            name.push('_');
        }
        after_small = character.is_ascii_lowercase();
        name.push(character.to_ascii_lowercase());
    }
    name
}
