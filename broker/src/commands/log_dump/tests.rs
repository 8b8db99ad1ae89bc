use super::*;
use storage::compression::Compression;
use storage::offset_index::OffsetIndexBuilder;
use storage::record_batch::RecordBatchBuilder;
use storage::time_index::{TimeIndexBuilder, TimestampOffset};
use storage::timestamp::Timestamp;

/// A partition directory with two batches of two records at offsets 10 and 12, and indexes that say so.
struct Partition {
    dir: tempfile::TempDir,
    second_at: usize,
}

fn batch(base_offset: i64, timestamp: i64, compression: Compression) -> Vec<u8> {
    RecordBatchBuilder::new()
        .base_offset(Offset::new(base_offset).unwrap())
        .compression(compression, None)
        .record(Timestamp::new(timestamp), Some(b"k"), Some(b"v\xff"), &[])
        .record(Timestamp::new(timestamp), None, Some(b"text"), &[])
        .build()
        .unwrap()
}

impl Partition {
    fn new() -> Partition {
        let dir = tempfile::tempdir().unwrap();
        let first = batch(10, 1000, Compression::None);
        let log = [first.clone(), batch(12, 2000, Compression::Zstd)].concat();
        let base = Offset::new(10).unwrap();
        let last = Offset::new(13).unwrap();
        let mut offsets = OffsetIndexBuilder::new();
        offsets.append(base, last, first.len() as u32);
        let mut times = TimeIndexBuilder::new();
        let timestamp = Timestamp::new(2000).unwrap();
        times.maybe_append(base, TimestampOffset { timestamp, offset: last });
        let partition = Partition { dir, second_at: first.len() };
        partition.write("log", &log);
        partition.write("index", offsets.bytes());
        partition.write("timeindex", times.bytes());
        partition
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.path().join(format!("00000000000000000010.{extension}"))
    }

    fn write(&self, extension: &str, bytes: &[u8]) {
        std::fs::write(self.path(extension), bytes).unwrap();
    }

    fn damage(&self, extension: &str, at: usize) {
        let mut bytes = std::fs::read(self.path(extension)).unwrap();
        bytes[at] ^= 0x40;
        self.write(extension, &bytes);
    }

    fn verify(&self, extension: &str) -> (u64, String) {
        // The function alone is not general enough in its writer's lifetime.
        #[expect(clippy::redundant_closure)]
        run(&self.path(extension), |file, out| verify::verify(file, out))
    }

    fn dump_log(&self, with_records: bool) -> (u64, String) {
        run(&self.path("log"), |file, out| segment::dump(file, with_records, out))
    }
}

fn run(
    path: &Path,
    command: impl Fn(&LogFile<'_>, &mut Output<&mut Vec<u8>>) -> Result<u64, CommandError>,
) -> (u64, String) {
    let mut out = Vec::new();
    let file = LogFile::by_name(path).unwrap();
    let problems = command(&file, &mut Output { out: &mut out, is_json: false }).unwrap();
    (problems, String::from_utf8(out).unwrap())
}

#[test]
fn a_log_is_printed_batch_by_batch_and_record_by_record() {
    let (problems, text) = Partition::new().dump_log(true);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((problems, lines.len()), (0, 6), "{text}");
    assert!(lines[0].starts_with("batch offset=10 last_offset=11 records=2 position=0 "), "{text}");
    assert!(lines[0].ends_with(" crc=right"), "{text}");
    assert_eq!(lines[1], r#"  record offset=10 timestamp=1000 key="k" value=0x76ff"#);
    assert_eq!(lines[2], r#"  record offset=11 timestamp=1000 key=null value="text""#);
    assert!(lines[3].contains(" compression=zstd "), "{text}");
    assert_eq!(lines[5], r#"  record offset=13 timestamp=2000 key=null value="text""#);
}

#[test]
fn records_are_left_out_on_demand() {
    let (problems, text) = Partition::new().dump_log(false);
    assert_eq!((problems, text.lines().count()), (0, 2), "{text}");
}

#[test]
fn a_file_as_it_was_written_is_sound() {
    let partition = Partition::new();
    for extension in ["log", "index", "timeindex"] {
        let (problems, text) = partition.verify(extension);
        assert_eq!(problems, 0, "{text}");
        assert!(text.ends_with("result=sound\n"), "{text}");
    }
    let (_, text) = partition.verify("log");
    assert!(text.starts_with("verified batches=2 records=4 next_offset=14 "), "{text}");
}

/// The base offset and the leader epoch are outside the CRC, and a length leads to another place.
#[test]
fn a_changed_byte_that_the_crc_covers_is_found() {
    let size = std::fs::metadata(Partition::new().path("log")).unwrap().len() as usize;
    let second_at = Partition::new().second_at;
    for at in (16..second_at).chain(second_at + 16..size) {
        let partition = Partition::new();
        partition.damage("log", at);
        let (problems, text) = partition.verify("log");
        assert!(problems > 0, "byte {at}: {text}");
        assert!(text.ends_with("result=BAD\n"), "byte {at}: {text}");
    }
}

#[test]
fn a_torn_tail_is_reported_with_its_size_and_what_is_before_it_is_printed() {
    let partition = Partition::new();
    let log = std::fs::read(partition.path("log")).unwrap();
    partition.write("log", &log[..log.len() - 3]);
    let (problems, text) = partition.dump_log(true);
    assert_eq!(problems, 1);
    let torn = format!(
        "problem position={} what={} bytes hold no whole batch",
        partition.second_at,
        log.len() - 3 - partition.second_at
    );
    assert!(text.lines().last().unwrap().starts_with(&torn), "{text}");
}

#[test]
fn an_index_that_points_elsewhere_is_found() {
    let partition = Partition::new();
    partition.damage("index", 7); // the position's lowest byte
    let (problems, text) = partition.verify("index");
    assert_eq!(problems, 1, "{text}");

    // The second batch has 2000: a lookup for 1800 would begin behind it.
    let mut times = TimeIndexBuilder::new();
    let entry = TimestampOffset {
        timestamp: Timestamp::new(1500).unwrap(),
        offset: Offset::new(13).unwrap(),
    };
    times.maybe_append(Offset::new(10).unwrap(), entry);
    partition.write("timeindex", times.bytes());
    let (problems, text) = partition.verify("timeindex");
    assert_eq!(problems, 1, "{text}");
    assert!(text.contains("younger records than 1500 up to offset 13"), "{text}");
}

#[test]
fn batches_that_go_back_are_found() {
    let partition = Partition::new();
    partition
        .write("log", &[batch(12, 1, Compression::None), batch(10, 1, Compression::None)].concat());
    let (problems, text) = partition.verify("log");
    assert_eq!(problems, 1, "{text}");
    assert!(text.contains("base offset 10 where at least 14 was due"), "{text}");
}

#[test]
fn names_that_are_not_a_partitions_are_usage_errors() {
    for name in ["leader-epoch-checkpoint", "x.log", "00.txt", "12"] {
        assert!(matches!(LogFile::by_name(Path::new(name)), Err(CommandError::Usage(_))), "{name}");
    }
    let deleted = LogFile::by_name(Path::new("00000000000000000007.log.deleted")).unwrap();
    assert_eq!((deleted.kind, deleted.base_offset.value()), (FileKind::Batches, 7));
}
