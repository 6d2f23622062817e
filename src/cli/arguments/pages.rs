//! What `certroll completions` and `certroll man` take.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = shell())]
    pub(in crate::cli) shell: Shell,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ManArguments {
    /// The command, such as `apply`, or `import rancher`
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(in crate::cli) command: Vec<String>,
    /// Write a page for certroll and for each command into this folder, such as ~/.local/share/man/man1
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) dir: Option<PathBuf>,
}

/// The shells that are documented and tested.
fn shell() -> impl clap::builder::TypedValueParser<Value = Shell> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(["bash", "zsh", "fish"]).map(|name| match name.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    })
}
