//! What goes wrong in a cell, and where it cannot.

use certroll::sim::Fault;

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

    /// Returns the fault in a stage, or why there is none.
    pub(super) fn fault(self, stage: &Stage) -> Result<Fault, &'static str> {
        let pattern = || stage.script.map(str::to_owned).ok_or("no command runs on a node in this stage");
        let container = stage.container.to_owned();
        Ok(match self {
            Self::Refused => Fault::Unreachable,
            Self::WrongKey => Fault::WrongHostKey,
            Self::Hang => Fault::Hang,
            Self::DropInWrite => Fault::DropWhileWriting { pattern: pattern()? },
            Self::ShortRead => Fault::ShortRead { pattern: pattern()? },
            Self::LostAnswer => Fault::LostAnswer { pattern: pattern()? },
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
        })
    }

    /// Returns whether the fault itself makes one half of a pair unreadable.
    pub(super) fn damages(self) -> bool {
        self == Self::CorruptFile
    }
}
