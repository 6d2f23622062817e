//! `cksum`: the checksum of POSIX, with the number of bytes.
#![expect(
    clippy::unnecessary_wraps,
    reason = "every program has the same signature, and some can be ended from outside"
)]

use super::inputs;
use crate::sim::shell::{Process, Unwind};

/// The polynomial of POSIX's checksum.
const POLYNOMIAL: u32 = 0x04C1_1DB7;

/// `cksum [FILE...]`; without a file of its stdin, and then without a name.
pub(super) fn cksum(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let (contents, status) = inputs(process, "cksum", arguments);
    for (name, content) in contents {
        let line = format!("{} {}", checksum(&content), content.len());
        process.put_line(&if arguments.is_empty() { line } else { format!("{line} {name}") });
    }
    Ok(status)
}

/// Returns the checksum of POSIX: a CRC over the content and its length.
fn checksum(content: &[u8]) -> u32 {
    let mut length = content.len();
    let digits = std::iter::from_fn(|| {
        let digit = u8::try_from(length & 0xFF).unwrap_or_default();
        let more = length > 0;
        length >>= 8;
        more.then_some(digit)
    });
    let step = |sum: u32, byte: u8| {
        (0..8).fold(sum ^ (u32::from(byte) << 24), |sum, _| {
            if sum & 0x8000_0000 == 0 { sum << 1 } else { (sum << 1) ^ POLYNOMIAL }
        })
    };
    !content.iter().copied().chain(digits).fold(0, step)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn sums_are_those_of_coreutils() {
        for (content, sum) in [("", 4_294_967_295), ("a\n", 2_418_082_923), ("kube-node\n", 2_272_388_756)] {
            assert_eq!(checksum(content.as_bytes()), sum, "{content:?}");
        }
    }
}
