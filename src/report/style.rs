//! A style is what the terminal allows, and how much the operator wants to read.
//!
//! The face finds it out once; every text report takes it. This file alone knows ANSI codes.

/// How a text report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether colours are added; a report is understood without them.
    pub color: Color,
    /// The columns of the terminal; `None` where lines may be as long as they are.
    pub width: Option<u16>,
    /// How much is said.
    pub detail: Detail,
}

/// Whether colours are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// ANSI codes are written.
    On,
    /// None are.
    Off,
}

/// How much a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Only what is not well (`-q`).
    Quiet,
    /// What a person wants to see.
    Normal,
    /// Everything (`-v`).
    Verbose,
}

/// What a piece of text means, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// A heading or a name.
    Strong,
    /// Less important than its surroundings.
    Faint,
    /// Well, or added.
    Good,
    /// Of concern, or changed.
    Warning,
    /// Broken, or forbidden.
    Bad,
}

impl Style {
    /// No colours, no limit of width, the usual detail: for files and pipes.
    pub const PLAIN: Self = Self { color: Color::Off, width: None, detail: Detail::Normal };

    /// Returns a text in the colour of its meaning.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        match self.color {
            Color::On if !text.is_empty() => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Color::On | Color::Off => text.to_owned(),
        }
    }

    /// Returns whether everything is to be said.
    pub fn is_verbose(self) -> bool {
        self.detail == Detail::Verbose
    }
}
