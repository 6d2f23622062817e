//! What goes wrong in a cell, how it begins, and where it cannot.

use certroll::sim::{Fault, RancherFailure};

use super::cell::Stage;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Refused,
    WrongKey,
    Hang,
    DropInWrite,
    ShortRead,
    DiskFull,
    ReadOnly,
    PermissionDenied,
    ContainerMissing,
    ContainerDies,
    NeverHealthy,
    DockerGone,
    Reboot,
    ClockWrong,
    CorruptFile,
    LostAnswer,
}

/// How it goes wrong.
pub(super) enum Begin {
    /// On a node, when lines have arrived that hold these texts.
    OnNode { fault: Fault, lines: Vec<&'static str> },
    /// In Rancher.
    InRancher(RancherFailure),
}

impl Wrong {
    pub(super) const ALL: [Self; 16] = [
        Self::Refused,
        Self::WrongKey,
        Self::Hang,
        Self::DropInWrite,
        Self::ShortRead,
        Self::DiskFull,
        Self::ReadOnly,
        Self::PermissionDenied,
        Self::ContainerMissing,
        Self::ContainerDies,
        Self::NeverHealthy,
        Self::DockerGone,
        Self::Reboot,
        Self::ClockWrong,
        Self::CorruptFile,
        Self::LostAnswer,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::WrongKey => "wrong key",
            Self::Hang => "hang",
            Self::DropInWrite => "drop in a write",
            Self::ShortRead => "short read",
            Self::DiskFull => "disk full",
            Self::ReadOnly => "read-only",
            Self::PermissionDenied => "permission denied",
            Self::ContainerMissing => "container missing",
            Self::ContainerDies => "container dies again",
            Self::NeverHealthy => "never healthy",
            Self::DockerGone => "docker gone",
            Self::Reboot => "reboot",
            Self::ClockWrong => "clock wrong",
            Self::CorruptFile => "corrupt file",
            Self::LostAnswer => "lost answer",
        }
    }

    /// Returns what goes wrong in a stage, or why nothing does.
    pub(super) fn begin(self, stage: &Stage) -> Result<Begin, &'static str> {
        let container = stage.container.to_owned();
        let Some(script) = stage.script else {
            return Ok(match self {
                // Rancher is asked, no node: it is its own connection that breaks.
                Self::DropInWrite => Begin::InRancher(RancherFailure::CallLost),
                Self::ShortRead => Begin::InRancher(RancherFailure::AnswerHalved),
                Self::LostAnswer => Begin::InRancher(RancherFailure::AnswerLost),
                _ => Begin::OnNode { fault: self.lasting(stage, container), lines: stage.lines.to_vec() },
            });
        };
        let pattern = script.to_owned();
        let fault = match self {
            Self::DropInWrite => {
                let write = stage.write.ok_or("nothing is written")?;
                let fault = Fault::DropWhileWriting { pattern: write.to_owned() };
                return Ok(Begin::OnNode { fault, lines: vec![write] });
            }
            Self::ShortRead => Fault::ShortRead { pattern },
            Self::LostAnswer => Fault::LostAnswer { pattern },
            _ => self.lasting(stage, container),
        };
        Ok(Begin::OnNode { fault, lines: stage.lines.to_vec() })
    }

    /// Returns the fault where it is one of a node, whatever runs there.
    fn lasting(self, stage: &Stage, container: String) -> Fault {
        match self {
            // These are of single commands.
            Self::Refused | Self::DropInWrite | Self::ShortRead | Self::LostAnswer => Fault::Unreachable,
            Self::WrongKey => Fault::WrongHostKey,
            Self::Hang => Fault::Hang,
            Self::DiskFull => Fault::DiskFull,
            Self::ReadOnly => Fault::ReadOnly,
            Self::PermissionDenied => Fault::PermissionDenied,
            Self::ContainerMissing => Fault::ContainerMissing { container },
            Self::ContainerDies => Fault::DiesAfterRestart { container },
            Self::NeverHealthy => Fault::UnhealthyAfterRestart { container },
            Self::DockerGone => Fault::DockerGone,
            Self::Reboot => Fault::Reboot,
            // Late by more than a day: certificates that are made now are not valid yet.
            Self::ClockWrong => Fault::ClockSkew { seconds: -100_000 },
            Self::CorruptFile => Fault::CorruptFile { path: stage.file.to_owned() },
        }
    }

    /// Returns whether the fault itself makes one half of a pair unreadable.
    pub(super) fn damages(self) -> bool {
        self == Self::CorruptFile
    }
}
