//! The archive of a machine that a node driver has made: its keys, as `links.nodeConfig` gives them.
//!
//! Rancher's handler (`pkg/api/customization/node/node.go`, the same from 2.0 to 2.9) writes each file of docker-machine's folder as
//! `<machine>/<file>`, but leaves `config.json` out. It writes them as Go's `archive/zip` does where no method is given: stored, with
//! sizes and sums behind the data.

/// The kinds of records in an archive.
const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;

/// A file of an archive.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) content: &'a [u8],
}

/// Returns the archive of a machine's files, each for its owner alone.
pub(super) fn archive(machine: &str, files: &[File<'_>]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for file in files {
        let name = format!("{machine}/{}", file.name);
        let (offset, sum, size) = (archive.len() as u32, crc32(file.content), file.content.len() as u32);
        put(&mut archive, &[&LOCAL.to_le_bytes(), &common(20, (0, 0), &name)]);
        put(&mut archive, &[name.as_bytes(), file.content]);
        put(
            &mut archive,
            &[&DESCRIPTOR.to_le_bytes(), &sum.to_le_bytes(), &size.to_le_bytes(), &size.to_le_bytes()],
        );
        // Made on Unix; a plain file of mode 0400.
        put(&mut directory, &[&CENTRAL.to_le_bytes(), &[20, 3], &common(20, (sum, size), &name)]);
        put(
            &mut directory,
            &[&[0; 6], &(0o100_400_u32 << 16).to_le_bytes(), &offset.to_le_bytes(), name.as_bytes()],
        );
    }
    let (count, size, offset) = (files.len() as u16, directory.len() as u32, archive.len() as u32);
    put(&mut archive, &[&directory, &END.to_le_bytes(), &[0; 4], &count.to_le_bytes(), &count.to_le_bytes()]);
    put(&mut archive, &[&size.to_le_bytes(), &offset.to_le_bytes(), &[0; 2]]);
    archive
}

/// Returns the part that the headers of a file have in common, up to the length of its extra field.
fn common(version: u16, (sum, size): (u32, u32), name: &str) -> Vec<u8> {
    let mut header = Vec::new();
    // Bit 3: sizes and sum follow the data. Method 0: stored. No time.
    put(&mut header, &[&version.to_le_bytes(), &8_u16.to_le_bytes(), &[0; 6]]);
    put(&mut header, &[&sum.to_le_bytes(), &size.to_le_bytes(), &size.to_le_bytes()]);
    put(&mut header, &[&(name.len() as u16).to_le_bytes(), &[0; 2]]);
    header
}

fn put(bytes: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        bytes.extend_from_slice(part);
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    !sum
}
