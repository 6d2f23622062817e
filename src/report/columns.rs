//! Columns are rows of cells, aligned without borders and as wide as the terminal allows.
//!
//! Every table of a text report is made of them.

use super::style::{Style, Tone};
use super::wrap::{narrowest, width_of, wrap};
use crate::escape::shown;

/// How many blanks stand between two columns.
const GAP: usize = 3;

/// How many where the terminal is too narrow for the columns as they are.
const NARROW_GAP: usize = 2;

/// A cell says this when there is nothing to say.
pub(super) const NOTHING: &str = "-";

/// A blank at which no line is broken; it is shown as any other.
pub(super) const NO_BREAK: char = '\u{a0}';

/// One cell: a text that is safe to show, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Returns a cell; control characters of the text are escaped.
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self { text: shown(text.as_ref()).into_owned(), tone: Tone::Plain }
    }

    /// Returns a cell that says nothing.
    pub(super) fn nothing() -> Self {
        Self::new(NOTHING)
    }

    /// Returns the same cell with a meaning.
    pub(super) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// One row: its cells, and a text in place of the cells that it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    cells: Vec<Cell>,
    rest: Option<Cell>,
}

/// Rows of cells, aligned without borders, for people.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    indent: usize,
    headings: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Columns {
    /// Returns columns with headings.
    pub(super) fn headed(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), ..Self::default() }
    }

    /// Returns columns without headings, moved to the right.
    pub(super) fn indented(indent: usize) -> Self {
        Self { indent, ..Self::default() }
    }

    /// Returns the same columns, moved to the right.
    pub(super) fn moved(self, indent: usize) -> Self {
        Self { indent, ..self }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row { cells, rest: None });
    }

    /// Adds a row that ends in a text which ignores the columns.
    pub(super) fn push_with_rest(&mut self, cells: Vec<Cell>, rest: Cell) {
        self.rows.push(Row { cells, rest: Some(rest) });
    }

    /// Returns the rows as lines. A column of which no row says anything is left out.
    pub(super) fn render(self, style: Style) -> String {
        self.blocks(style).concat()
    }

    /// Returns the lines of each row by themselves, for texts that put something between rows.
    pub(super) fn blocks(mut self, style: Style) -> Vec<String> {
        self.leave_out_silent_columns();
        let layout = self.layout(style);
        let mut blocks = Vec::with_capacity(self.rows.len() + 1);
        if !self.headings.is_empty() {
            let cells = self.headings.iter().map(|heading| Cell::new(heading).tone(Tone::Faint)).collect();
            blocks.push(layout.block(&Row { cells, rest: None }, style));
        }
        blocks.extend(self.rows.iter().map(|row| layout.block(row, style)));
        blocks
    }

    /// Removes the columns in which no row says anything.
    fn leave_out_silent_columns(&mut self) {
        for column in (0..self.column_count()).rev() {
            let mut cells = self.rows.iter().filter_map(|row| row.cells.get(column));
            if cells.all(|cell| cell.text.is_empty() || cell.text == NOTHING) {
                if column < self.headings.len() {
                    self.headings.remove(column);
                }
                for row in self.rows.iter_mut().filter(|row| column < row.cells.len()) {
                    row.cells.remove(column);
                }
            }
        }
    }

    fn column_count(&self) -> usize {
        self.rows.iter().map(|row| row.cells.len()).max().unwrap_or_default()
    }

    /// Returns where the columns stand; the widest give way until all fit.
    fn layout(&self, style: Style) -> Layout {
        let measure = |of: fn(&str) -> usize| -> Vec<usize> {
            let column = |column: usize| {
                let heading = self.headings.get(column).copied().map_or(0, of);
                let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
                cells.map(|cell| of(&cell.text)).fold(heading, usize::max)
            };
            (0..self.column_count()).map(column).collect()
        };
        let mut widths = measure(width_of);
        let total = |widths: &[usize], gap: usize| {
            self.indent + widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1)
        };
        let limit = style.width.map_or(usize::MAX, usize::from);
        if total(&widths, GAP) <= limit {
            return Layout { indent: self.indent, gap: GAP, widths };
        }
        let narrowest = measure(narrowest);
        while total(&widths, NARROW_GAP) > limit {
            let candidates = widths.iter_mut().zip(&narrowest).filter(|(width, least)| **width > **least);
            let Some((widest, _)) = candidates.max_by_key(|(width, _)| **width) else { break };
            *widest -= 1;
        }
        Layout { indent: self.indent, gap: NARROW_GAP, widths }
    }
}

/// Where columns stand.
struct Layout {
    indent: usize,
    gap: usize,
    widths: Vec<usize>,
}

impl Layout {
    /// Returns the lines of one row, each with its end.
    fn block(&self, row: &Row, style: Style) -> String {
        let mut blocks: Vec<(Vec<String>, usize, Tone)> = row
            .cells
            .iter()
            .zip(&self.widths)
            .map(|(cell, width)| (wrap(&cell.text, *width), *width, cell.tone))
            .collect();
        if let Some(rest) = &row.rest {
            let before: usize =
                self.indent + blocks.iter().map(|(_, width, _)| width + self.gap).sum::<usize>();
            let limit = style.width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(before));
            blocks.push((wrap(&rest.text, limit.max(narrowest(&rest.text))), 0, rest.tone));
        }
        let height = blocks.iter().map(|(lines, _, _)| lines.len()).max().unwrap_or_default();
        (0..height).map(|number| self.line(&blocks, number, style) + "\n").collect()
    }

    /// Returns one line of a row, without blanks at its end.
    fn line(&self, blocks: &[(Vec<String>, usize, Tone)], number: usize, style: Style) -> String {
        let mut line = " ".repeat(self.indent);
        let mut blanks = 0;
        for (lines, width, tone) in blocks {
            let text = lines.get(number).map_or("", String::as_str);
            if !text.is_empty() {
                line.push_str(&" ".repeat(blanks));
                line.push_str(&style.paint(*tone, &text.replace(NO_BREAK, " ")));
                blanks = 0;
            }
            blanks += width.saturating_sub(width_of(text)) + self.gap;
        }
        line.truncate(line.trim_end_matches(' ').len());
        line
    }
}
