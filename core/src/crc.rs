//! The checksum of files and frames.

/// CRC-32 (ISO-HDLC, as in zip and Ethernet) of bytes that come in parts.
///
/// Four bits at a time: the usual table of 256 entries would be 1 KB of a board's flash, for a check of one file at start.
#[derive(Clone, Debug)]
pub(crate) struct Crc32(u32);

/// The remainders of four bits, lowest first.
const TABLE: [u32; 16] = {
    let mut table = [0; 16];
    let mut entry = 0;
    while entry < 16 {
        let (mut rest, mut bit) = (entry as u32, 0);
        while bit < 4 {
            rest = (rest >> 1) ^ (0xEDB8_8320 & (rest & 1).wrapping_neg());
            bit += 1;
        }
        table[entry] = rest;
        entry += 1;
    }
    table
};

impl Default for Crc32 {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32 {
    /// Takes in some bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let state = self.0 ^ u32::from(*byte);
            let state = (state >> 4) ^ TABLE[(state & 15) as usize];
            self.0 = (state >> 4) ^ TABLE[(state & 15) as usize];
        }
    }

    /// The checksum of all bytes so far.
    pub(crate) const fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        let of = |parts: &[&[u8]]| {
            let mut crc = Crc32::default();
            parts.iter().for_each(|part| crc.update(part));
            crc.value()
        };
        assert_eq!(of(&[]), 0);
        // The check value of the catalogue of CRCs.
        assert_eq!(of(&[b"123456789"]), 0xCBF4_3926);
        assert_eq!(of(&[b"1234", b"", b"56789"]), 0xCBF4_3926);
        assert_eq!(of(&[&[0; 32]]), 0x190A_55AD);
        assert_eq!(of(&[&[0xFF; 32]]), 0xFF6C_AB0B);
    }
}
