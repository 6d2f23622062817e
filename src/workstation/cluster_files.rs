//! The files of a cluster are those that rke keeps beside its cluster.yml: `<name>.rkestate` and `kube_config_<file>`.
//!
//! `-c -` has none of them. Both hold private keys, and are wiped after use.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::WorkstationError;
use super::config_file::{ConfigFileError, STANDARD_INPUT, read_file, read_named};
use super::replace::{BackupPath, replace_file};
use crate::facts::{BastionFiles, KubeConfigSummary, StateSummary};
use crate::pki::{ClusterAddress, FullState, KubeConfig, SavedState, admin_kube_config};

/// The largest file that is read, in bytes. The state of 1,000 nodes takes some MiB.
const LIMIT: u64 = 64 << 20;

/// `<name>.rkestate` beside a cluster.yml.
#[derive(Debug)]
pub struct StateFile {
    /// The file.
    pub path: PathBuf,
    /// What it holds, to be changed.
    pub state: FullState,
}

impl StateFile {
    /// Reads the state beside a cluster.yml; `None` where there is none.
    pub fn read(config: &Path) -> Result<Option<Self>, WorkstationError> {
        beside(config, state_name).map_or(Ok(None), Self::open)
    }

    /// Reads a state; `None` where there is none.
    pub fn open(path: PathBuf) -> Result<Option<Self>, WorkstationError> {
        let Some(text) = content(&path)? else { return Ok(None) };
        match FullState::parse(&text) {
            Ok(state) => Ok(Some(Self { path, state })),
            Err(cause) => Err(WorkstationError::State { path, cause }),
        }
    }

    /// Writes it back as rke writes it, and returns where the old one is kept.
    pub fn write(&self, backup_suffix: &str) -> Result<Option<BackupPath>, WorkstationError> {
        replace_file(&self.path, &self.state.to_indented(), backup_suffix)
    }

    /// Returns what of it is not secret.
    pub fn summary(&self) -> StateSummary {
        let mut names: Vec<String> = Vec::new();
        for certificate in self.state.certificates() {
            if !names.contains(&certificate.name) {
                names.push(certificate.name);
            }
        }
        let authority = self.state.authority().map(|authority| authority.sha256);
        StateSummary { path: self.path.clone(), authority, names }
    }
}

/// `kube_config_<file>` beside a cluster.yml.
#[derive(Debug)]
pub struct KubeConfigFile {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub kube_config: KubeConfig,
}

impl KubeConfigFile {
    /// Reads the kubeconfig beside a cluster.yml; `None` where there is none.
    pub fn read(config: &Path) -> Result<Option<Self>, WorkstationError> {
        beside(config, kube_config_name).map_or(Ok(None), Self::open)
    }

    /// Reads a kubeconfig; `None` where there is none.
    pub fn open(path: PathBuf) -> Result<Option<Self>, WorkstationError> {
        let Some(bytes) = content(&path)? else { return Ok(None) };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::of_text(path, text).map(Some),
            Err(_) => Err(WorkstationError::NotText { path }),
        }
    }

    /// Makes the kubeconfig that rke would make.
    pub fn make(
        path: PathBuf,
        cluster: ClusterAddress<'_>,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Result<Self, WorkstationError> {
        Self::of_text(path, &admin_kube_config(cluster, certificate_pem, key_pem))
    }

    fn of_text(path: PathBuf, text: &str) -> Result<Self, WorkstationError> {
        match KubeConfig::parse(text) {
            Ok(kube_config) => Ok(Self { path, kube_config }),
            Err(cause) => Err(WorkstationError::KubeConfig { path, cause }),
        }
    }

    /// Puts another pair in the place of the embedded one; returns whether anything changed.
    pub fn replace(&mut self, certificate_pem: &str, key_pem: &str) -> Result<bool, WorkstationError> {
        self.kube_config
            .replace(certificate_pem, Some(key_pem))
            .map_err(|cause| WorkstationError::KubeConfig { path: self.path.clone(), cause })
    }

    /// Writes it, and returns where the old one is kept, if there was one.
    pub fn write(&self, backup_suffix: &str) -> Result<Option<BackupPath>, WorkstationError> {
        replace_file(&self.path, self.kube_config.as_str(), backup_suffix)
    }

    /// Returns what of it is not secret.
    pub fn summary(&self) -> KubeConfigSummary {
        let authority = self.kube_config.authority().and_then(Result::ok);
        KubeConfigSummary {
            path: self.path.clone(),
            authority: authority.map(|authority| authority.sha256.clone()),
            admin: self.kube_config.certificate().and_then(Result::ok).cloned(),
        }
    }
}

/// Reads what somebody saved of rke's state, from a file that is named or from standard input for `-`.
pub fn read_saved_state(path: &Path) -> Result<SavedState, WorkstationError> {
    let text = read_secret(path)?;
    SavedState::parse(&text).map_err(|cause| WorkstationError::SavedState { path: path.to_owned(), cause })
}

/// Reads a file that is named, or standard input for `-`, as bytes that are wiped after use.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, WorkstationError> {
    read_named(path, LIMIT).map(Zeroizing::new).map_err(WorkstationError::Unreadable)
}

/// Returns what lies beside a cluster.yml.
pub fn bastion_files(config: &Path) -> Result<BastionFiles, WorkstationError> {
    Ok(BastionFiles {
        state: StateFile::read(config)?.as_ref().map(StateFile::summary),
        kube_config_path: beside(config, kube_config_name),
        kube_config: KubeConfigFile::read(config)?.as_ref().map(KubeConfigFile::summary),
    })
}

/// Returns the files that rke writes beside a cluster.yml: its state and the kubeconfig; none where that is standard input.
pub fn rke_files(config: &Path) -> Vec<PathBuf> {
    [state_name, kube_config_name].into_iter().filter_map(|name| beside(config, name)).collect()
}

/// Returns the name of the state's file: the ending of the cluster.yml is replaced (RKE `cluster/state.go` `GetStateFilePath`).
fn state_name(file_name: &str) -> String {
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    format!("{stem}.rkestate")
}

/// Returns the name of the kubeconfig's file (RKE `pki/util.go` `GetLocalKubeConfig`).
fn kube_config_name(file_name: &str) -> String {
    format!("kube_config_{file_name}")
}

/// Returns the path of a file beside a cluster.yml; `None` where that is standard input.
fn beside(config: &Path, name: fn(&str) -> String) -> Option<PathBuf> {
    let file_name = config.file_name().filter(|_| config != Path::new(STANDARD_INPUT))?;
    Some(config.with_file_name(name(file_name.to_str()?)))
}

/// Returns the bytes of a file, which are wiped after use; `None` where there is none.
fn content(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, WorkstationError> {
    match read_file(path, LIMIT) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(ConfigFileError::Missing { .. }) => Ok(None),
        Err(error) => Err(WorkstationError::Unreadable(error)),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the subject is files")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::pki::{Certificate, KUBE_ADMIN};

    const STATE: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/cluster.rkestate");
    const KUBE_CONFIG: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/kube_config_cluster.yml");
    const OTHER: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-node.pem");

    /// Lays files beside a cluster.yml and returns its path.
    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = folder.path().join("cluster.yml");
        (folder, config)
    }

    #[test]
    fn the_names_are_those_of_rke() {
        let of = |config: &str, name| beside(Path::new(config), name).map(|path| path.display().to_string());
        for (config, state, kube_config) in [
            ("cluster.yml", "cluster.rkestate", "kube_config_cluster.yml"),
            (
                "../a.b/rancher.cluster.yaml",
                "../a.b/rancher.cluster.rkestate",
                "../a.b/kube_config_rancher.cluster.yaml",
            ),
            ("/x.y/cluster", "/x.y/cluster.rkestate", "/x.y/kube_config_cluster"),
        ] {
            assert_eq!(of(config, state_name).as_deref(), Some(state));
            assert_eq!(of(config, kube_config_name).as_deref(), Some(kube_config));
        }
        assert_eq!(of("-", state_name), None);
    }

    #[test]
    fn the_files_of_a_real_cluster_are_summed_up() {
        let (folder, config) =
            folder(&[("cluster.rkestate", STATE), ("kube_config_cluster.yml", KUBE_CONFIG)]);
        let files = bastion_files(&config).unwrap();
        let authority = include_str!("../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-ca.pem");
        let authority = Some(Certificate::from_pem(authority.as_bytes()).unwrap().sha256);
        let state = files.state.unwrap();
        assert_eq!(state.path, folder.path().join("cluster.rkestate"));
        assert_eq!(state.authority, authority);
        assert_eq!(state.names.len(), 13);
        let kube_config = files.kube_config.unwrap();
        assert_eq!(kube_config.authority, authority);
        assert_eq!(kube_config.admin.unwrap().common_name(), Some(KUBE_ADMIN));
    }

    #[test]
    fn a_cluster_without_these_files_has_none() {
        let (_folder, config) = folder(&[]);
        let files = bastion_files(&config).unwrap();
        assert_eq!((files.state, files.kube_config), (None, None));
        assert_eq!(files.kube_config_path, Some(config.with_file_name("kube_config_cluster.yml")));
        assert_eq!(bastion_files(Path::new("-")).unwrap(), BastionFiles::default());
    }

    #[test]
    fn a_file_that_is_torn_is_refused_with_its_name_and_not_quoted() {
        let (folder, config) = folder(&[("cluster.rkestate", &STATE[..9000])]);
        let error = bastion_files(&config).unwrap_err();
        let path = folder.path().join("cluster.rkestate");
        let expected =
            format!("`{}` is not a state of rke: it ends in the middle, in line 172", path.display());
        assert_eq!(error.to_string(), expected);

        fs::remove_file(path).unwrap();
        let path = folder.path().join("kube_config_cluster.yml");
        fs::write(&path, "users: [secret").unwrap();
        let error = bastion_files(&config).unwrap_err().to_string();
        let expected = format!("`{}` cannot be used: it is not a kubeconfig: line ", path.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(!error.contains("secret"), "{error}");

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = bastion_files(&config).unwrap_err().to_string();
        assert_eq!(error, format!("`{}` is a folder, not a file", path.display()));
    }

    #[test]
    fn a_file_of_somebody_else_is_not_taken_for_missing() {
        let (folder, config) = folder(&[("cluster.rkestate", STATE)]);
        let path = folder.path().join("cluster.rkestate");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(&path).is_ok() {
            eprintln!("skipped: root may read every file");
            return;
        }
        let error = bastion_files(&config).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` cannot be read", path.display()));
        assert_eq!(error.hint(), "check its owner and mode, or run as a user who may read it");
    }

    #[test]
    fn both_are_written_back_with_another_pair() {
        let (folder, config) =
            folder(&[("cluster.rkestate", STATE), ("kube_config_cluster.yml", KUBE_CONFIG)]);
        let mut state = StateFile::read(&config).unwrap().unwrap();
        assert!(state.state.replace(KUBE_ADMIN, OTHER, Some("a key")));
        let backup = state.write("before").unwrap().unwrap();
        assert_eq!(backup.as_path(), folder.path().join("cluster.rkestate.before"));
        let mut kube_config = KubeConfigFile::read(&config).unwrap().unwrap();
        assert!(kube_config.replace(OTHER, "a key").unwrap());
        kube_config.write("before").unwrap();

        assert_eq!(fs::read_to_string(folder.path().join("cluster.rkestate.before")).unwrap(), STATE);
        assert_eq!(
            fs::read_to_string(folder.path().join("kube_config_cluster.yml.before")).unwrap(),
            KUBE_CONFIG
        );
        let admin = bastion_files(&config).unwrap().kube_config.unwrap().admin.unwrap();
        assert_eq!(admin.common_name(), Some("system:node"));
        let mut again = StateFile::read(&config).unwrap().unwrap();
        assert!(!again.state.replace(KUBE_ADMIN, OTHER, Some("a key")));
    }

    #[test]
    fn a_kubeconfig_is_made_where_there_is_none() {
        let (_folder, config) = folder(&[]);
        let cluster = ClusterAddress { server: "https://10.0.0.1:6443", name: "local", authority_pem: OTHER };
        let path = bastion_files(&config).unwrap().kube_config_path.unwrap();
        let made = KubeConfigFile::make(path, cluster, OTHER, "a key").unwrap();
        assert!(made.write("before").unwrap().is_none());
        let read = KubeConfigFile::read(&config).unwrap().unwrap();
        assert_eq!(read.kube_config.server(), Some("https://10.0.0.1:6443"));
        assert_eq!(read.summary().admin.unwrap().common_name(), Some("system:node"));
        assert_eq!(bastion_files(Path::new("-")).unwrap().kube_config_path, None);
    }
}
