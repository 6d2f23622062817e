//! What `certroll exec` takes.

use clap::Args;

#[derive(Debug, Clone, Args)]
#[command(after_help = EXEC_AFTER_HELP)]
pub(in crate::cli) struct ExecArguments {
    /// Run the command as root, in the way that --become says
    #[arg(long)]
    pub(in crate::cli) as_root: bool,
    /// Show at the end what nodes printed, once for all that printed the same; at most 1 MiB a node and 64 MiB of all are kept
    #[arg(long)]
    pub(in crate::cli) fold: bool,
    /// The command, behind `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<String>,
}

const EXEC_AFTER_HELP: &str = "\
With `-o json` each node is one line: node, status, stdout, stderr (at most 1 MiB together; cut_bytes says how much more there was), error.

Exit status 1 where a node could not be reached or its command did not end with status 0; 130 after Ctrl-C.

Examples:
  certroll exec -n role=worker -- uptime
  certroll exec --fold -- docker version --format '{{.Server.Version}}'
  certroll exec --as-root -n 'w-*,!w-3' -- 'du -sh /var/lib/docker | cut -f1'
  certroll exec -n cp-1 -- cat '>' /tmp/hosts < hosts";
