//! What happened, for a person and as a digest.

/// Every event's line goes into the digest; shown only when asked for.
#[derive(Debug)]
pub(super) struct Trace {
    verbose: bool,
    digest: u64,
}

impl Trace {
    pub(super) fn new(verbose: bool) -> Trace {
        Trace { verbose, digest: 0xcbf2_9ce4_8422_2325 }
    }

    pub(super) fn note(&mut self, line: &str) {
        if self.verbose {
            println!("{line}");
        }
        for byte in line.bytes().chain([b'\n']) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }
}
