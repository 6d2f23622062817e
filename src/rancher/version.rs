//! A server version is what Rancher says of itself in the setting `server-version`.

use std::fmt;

/// The version of a Rancher server, `v2.2.8` or a name such as `master-head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion(String);

impl ServerVersion {
    /// Takes the value of the setting.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the version as the server gives it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the API of this version can rotate certificates: 2.0.14, 2.1.9 and later; `None` for a name.
    pub fn can_rotate(&self) -> Option<bool> {
        Some(match self.numbers()? {
            (2, 0, patch) => patch >= 14,
            (2, 1, patch) => patch >= 9,
            (major, ..) => major >= 2,
        })
    }

    /// Returns whether this version can rotate one service alone: 2.2 and later; `None` for a name.
    ///
    /// 2.0.14 and 2.1.9 do not read what a request says and would rotate everything.
    pub fn can_choose_service(&self) -> Option<bool> {
        self.numbers().map(|(major, minor, _)| (major, minor) >= (2, 2))
    }

    fn numbers(&self) -> Option<(u32, u32, u32)> {
        let release = self.0.trim().trim_start_matches('v').split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_came_with_2_0_14_and_2_1_9() {
        for (version, can_rotate, can_choose) in [
            ("v2.0.13", Some(false), Some(false)),
            ("v2.0.14", Some(true), Some(false)),
            ("v2.1.8", Some(false), Some(false)),
            ("v2.1.10", Some(true), Some(false)),
            ("v2.2.0-rc3", Some(true), Some(true)),
            ("v2.2.8", Some(true), Some(true)),
            ("2.9.3", Some(true), Some(true)),
            ("v1.6.30", Some(false), Some(false)),
            ("master-head", None, None),
            ("", None, None),
        ] {
            let version = ServerVersion::new(version);
            assert_eq!(
                (version.can_rotate(), version.can_choose_service()),
                (can_rotate, can_choose),
                "{version}"
            );
        }
    }
}
