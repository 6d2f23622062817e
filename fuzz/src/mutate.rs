//! A mutator makes new inputs from old ones by chance that can be repeated.

use fastrand::Rng;

/// Numbers at which programs break.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e999",
];

/// Bytes at which texts break.
const BYTES: &[u8] = b"\0\x01\x07\x1b\x7f\x80\xff\n\r\t \"'\\{}[]:,-|0";

/// Makes inputs.
pub(super) struct Mutator {
    chance: Rng,
    dictionary: &'static [&'static str],
    longest: usize,
}

impl Mutator {
    /// Returns a mutator whose inputs follow from a seed.
    pub(super) fn new(seed: u64, dictionary: &'static [&'static str], longest: usize) -> Self {
        Self { chance: Rng::with_seed(seed), dictionary, longest }
    }

    /// Returns a changed input.
    pub(super) fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(corpus).unwrap_or_default();
        for _ in 0..=self.chance.usize(..6) {
            self.change(&mut input, corpus);
        }
        input.truncate(self.longest);
        input
    }

    fn one_of(&mut self, corpus: &[Vec<u8>]) -> Option<Vec<u8>> {
        self.chance.choice(corpus).cloned()
    }

    /// Returns a part of a text: a place and a length that is mostly small.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        if length == 0 {
            return 0..0;
        }
        let start = self.chance.usize(..length);
        let most = if self.chance.u8(..4) == 0 { length } else { 16 };
        start..(start + 1 + self.chance.usize(..most)).min(length)
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let part = self.part(input.len());
        match self.chance.u8(..12) {
            0 => {
                if let Some(byte) = input.get_mut(part.start) {
                    *byte ^= 1 << self.chance.u8(..8);
                }
            }
            1 => {
                if let (Some(byte), Some(other)) = (input.get_mut(part.start), self.chance.choice(BYTES)) {
                    *byte = *other;
                }
            }
            2 => drop(input.drain(part)),
            3 => {
                let copy: Vec<u8> = input.get(part.clone()).unwrap_or_default().to_vec();
                // Now and then often enough for a stack to overflow, or for time that grows faster than the input.
                let times = if self.chance.u8(..8) == 0 { 1 << self.chance.u32(..14) } else { 1 };
                let times = times.min(self.longest / copy.len().max(1));
                input.splice(part.start..part.start, copy.repeat(times));
            }
            4 => {
                if let Some(other) = self.one_of(corpus) {
                    let theirs = self.part(other.len());
                    input.splice(part, other.get(theirs).unwrap_or_default().to_vec());
                }
            }
            5 | 6 => {
                if let Some(word) = self.chance.choice(self.dictionary) {
                    input.splice(part.start..part.start, word.bytes());
                }
            }
            7 => self.change_number(input, part.start),
            8 => self.change_line(input),
            9 => input.truncate(part.start),
            10 => {
                let bytes: Vec<u8> = (0..self.chance.usize(1..9)).map(|_| self.chance.u8(..)).collect();
                input.splice(part, bytes);
            }
            _ => {
                if let Some(other) = self.one_of(corpus) {
                    let theirs = self.part(other.len()).start;
                    input.truncate(part.start);
                    input.extend_from_slice(other.get(theirs..).unwrap_or_default());
                }
            }
        }
    }

    /// Puts a number at which programs break in the place of the next one.
    fn change_number(&mut self, input: &mut Vec<u8>, from: usize) {
        let Some(start) = input.iter().skip(from).position(u8::is_ascii_digit).map(|at| at + from) else {
            return;
        };
        let digits = input.iter().skip(start).take_while(|byte| byte.is_ascii_digit()).count();
        if let Some(number) = self.chance.choice(NUMBERS) {
            input.splice(start..start + digits, number.bytes());
        }
    }

    /// Takes a line out, doubles it, or puts it elsewhere.
    fn change_line(&mut self, input: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> =
            input.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.is_empty() {
            return;
        }
        let line = lines.remove(self.chance.usize(..lines.len()));
        for _ in 0..self.chance.u8(..3) {
            let place = self.chance.usize(..=lines.len());
            lines.insert(place, line.clone());
        }
        *input = lines.concat();
    }
}
