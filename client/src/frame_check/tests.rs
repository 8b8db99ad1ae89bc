use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A request body taken apart by the crate, and the bytes it left over.
fn decode(api_key: i16, api_version: i16, body: &[u8]) -> Result<(RequestKind, usize), String> {
    let key = ApiKey::try_from(api_key).map_err(|()| format!("crate lacks api key {api_key}"))?;
    let mut bytes = Bytes::copy_from_slice(body);
    let request =
        RequestKind::decode(key, &mut bytes, api_version).map_err(|error| error.to_string())?;
    Ok((request, bytes.len()))
}

/// A response body taken apart by the crate: how many bytes it left over.
fn decode_response(api_key: i16, api_version: i16, body: &[u8]) -> Result<usize, String> {
    let key = ApiKey::try_from(api_key).map_err(|()| format!("crate lacks api key {api_key}"))?;
    let mut bytes = Bytes::copy_from_slice(body);
    ResponseKind::decode(key, &mut bytes, api_version).map_err(|error| format!("{error:#}"))?;
    Ok(bytes.len())
}

/// Flips, cuts, doubles and overwrites bytes; lengths and counts are favoured by writing extreme values.
fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..1 + rng.next_u64() % 3 {
        if bytes.is_empty() {
            return;
        }
        let at = rng.next_u64() as usize % bytes.len();
        match rng.next_u64() % 6 {
            0 => bytes[at] ^= 1 << (rng.next_u64() % 8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.next_u64() as usize % 5],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.next_u64() as u8),
            4 => drop(bytes.remove(at)),
            _ => {
                let value = [[0x7f, 0xff, 0xff, 0xff], [0xff; 4], [0, 0x10, 0, 0]];
                let value = value[rng.next_u64() as usize % 3];
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
        }
    }
}

/// What the crate says it has and what it decodes differ for versions that Kafka 4.1 marks unstable: those stay out.
const UNSTABLE_IN_KAFKA: [(i16, i16); 3] = [(8, 10), (9, 10), (22, 6)];

#[test]
fn the_table_has_every_request_of_the_crate_in_its_stable_versions() {
    for key in 0..200 {
        let of_crate = ApiKey::try_from(key).ok().map(|key| key.valid_versions());
        let expected = of_crate.map(|range| match UNSTABLE_IN_KAFKA.contains(&(key, range.max)) {
            true => (range.min, range.max - 1),
            false => (range.min, range.max),
        });
        assert_eq!(schema_versions(key), expected, "api key {key}");
    }
}

#[test]
fn header_versions_are_the_crates() {
    for (key, version) in arbitrary::all_versions() {
        let header_version = if version >= api(key).unwrap().flexible_from { 2 } else { 1 };
        let crate_key = ApiKey::try_from(key).unwrap();
        assert_eq!(header_version, crate_key.request_header_version(version), "{key} v{version}");
        let size = response_header_size(key, version, &[0; 5]).unwrap();
        let of_crate = crate_key.response_header_version(version);
        assert_eq!(size, if of_crate == 1 { 5 } else { 4 }, "{key} v{version}");
    }
}

#[test]
fn a_count_without_bytes_behind_it_is_refused() {
    // Both abort a process that decodes them unchecked: 150 and 400 GB asked for.
    let metadata_v1 = [0x7f, 0xff, 0xff, 0xff];
    assert!(matches!(
        check_request(3, 1, &metadata_v1),
        Err(FrameError::TooManyElements { position: 4, count: 0x7fff_ffff, remaining: 0 })
    ));
    let produce_v9 = [0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(matches!(
        check_request(0, 9, &produce_v9),
        Err(FrameError::TooManyElements { count: 0xffff_fffe, .. })
    ));
}

#[test]
fn a_compact_string_is_no_longer_than_a_plain_one_may_be() {
    // FindCoordinator v3: a key, its type, tags.
    let body = |length: usize| {
        let mut body = vec![];
        let mut varint = length + 1;
        while varint >= 0x80 {
            body.push(varint as u8 | 0x80);
            varint >>= 7;
        }
        body.push(varint as u8);
        body.resize(body.len() + length, b'x');
        body.extend([0, 0]);
        body
    };
    assert_eq!(check_request(10, 3, &body(32_767)), Ok(()));
    assert_eq!(
        check_request(10, 3, &body(32_768)),
        Err(FrameError::StringTooLong { position: 3, length: 32_768 })
    );
}

#[test]
fn an_array_may_be_as_long_as_its_bytes_and_not_one_longer() {
    // Metadata v0: names of no length, two bytes each.
    let body = |count: i32, names: usize| [&count.to_be_bytes()[..], &vec![0; 2 * names]].concat();
    assert_eq!(check_request(3, 0, &body(7, 7)), Ok(()));
    assert!(check_request(3, 0, &body(8, 7)).is_err());
}

#[test]
fn millions_of_empty_names_are_too_large_once_decoded() {
    let count = 40_000_000_i32;
    let mut body = count.to_be_bytes().to_vec();
    body.resize(4 + 2 * count as usize, 0);
    assert!(matches!(check_request(3, 0, &body), Err(FrameError::DecodedTooLarge { .. })));
}

#[test]
fn thousands_of_topics_with_short_names_are_not_too_large() {
    let count = 200_000_i32;
    let mut body = count.to_be_bytes().to_vec();
    (0..count).for_each(|n| body.extend(format!("\0\x06t{n:05}").bytes().take(8)));
    assert_eq!(check_request(3, 0, &body), Ok(()));
}

#[test]
fn millions_of_unknown_tagged_fields_are_too_large_once_decoded() {
    let count = 3_000_000_u32;
    let mut body = vec![]; // ApiVersions v3: two strings, tags
    body.extend([2, b'a', 2, b'b']);
    body.extend([0x80 | (count & 0x7f) as u8, 0x80 | (count >> 7 & 0x7f) as u8]);
    body.extend([0x80 | (count >> 14 & 0x7f) as u8, (count >> 21) as u8]);
    (0..count).for_each(|n| {
        body.extend([0x80 | n as u8, 0x80 | (n >> 7) as u8, 0x80 | (n >> 14) as u8, 1, 0])
    });
    assert!(matches!(check_request(18, 3, &body), Err(FrameError::DecodedTooLarge { .. })));
}

#[test]
fn a_tag_of_another_version_or_of_the_wrong_size_is_refused() {
    // Fetch v12 ends with its tagged fields; cluster id is tag 0, replica state tag 1 from v15 on.
    let fetch = |tail: &[u8]| {
        let mut body = vec![0; 4 + 4 + 4 + 4 + 1 + 4 + 4];
        body.extend([1, 1, 1]); // no topics, none forgotten, rack ""
        body.extend(tail);
        body
    };
    assert_eq!(check_request(1, 12, &fetch(&[1, 0, 2, 2, b'x'])), Ok(()));
    assert_eq!(
        check_request(1, 12, &fetch(&[1, 0, 3, 2, b'x', 0])),
        Err(FrameError::TagSizeWrong { position: 31, tag: 0, claimed: 3, taken: 2 })
    );
    assert_eq!(
        check_request(1, 12, &fetch(&[1, 1, 0])),
        Err(FrameError::TagNotInVersion { position: 31, tag: 1 })
    );
}

#[test]
fn null_and_text_are_where_the_version_has_them() {
    let null_array = (-1_i32).to_be_bytes();
    assert_eq!(check_request(3, 0, &null_array), Err(FrameError::NullNotAllowed { position: 0 }));
    assert_eq!(check_request(3, 1, &null_array), Ok(()));
    let bad_text = [0, 0, 0, 1, 0, 1, 0xff];
    assert_eq!(check_request(3, 1, &bad_text), Err(FrameError::NotUtf8 { position: 6 }));
}

#[test]
fn a_header_of_every_kind_is_read() {
    let v1 = [0, 3, 0, 1, 0, 0, 0, 9, 0, 2, b'm', b'e', 0xaa];
    let view = RequestHeaderView::parse(&v1).unwrap();
    assert_eq!((view.api_key, view.api_version, view.correlation_id), (3, 1, 9));
    assert_eq!((view.client_id, view.body_offset), (Some("me"), 12));
    let v2 = [0, 3, 0, 9, 0, 0, 0, 9, 0xff, 0xff, 1, 50, 2, 7, 7, 0xaa];
    let view = RequestHeaderView::parse(&v2).unwrap();
    assert_eq!((view.client_id, view.body_offset), (None, 15));
    // Kafka serves clients with odd ids.
    let negative = [0, 18, 0, 0, 0, 0, 0, 9, 0xff, 0xfe];
    assert_eq!(RequestHeaderView::parse(&negative).unwrap().client_id, None);
    let not_utf8 = [0, 18, 0, 0, 0, 0, 0, 9, 0, 3, b'a', 0xff, b'b'];
    let view = RequestHeaderView::parse(&not_utf8).unwrap();
    assert_eq!((view.client_id, view.body_offset), (Some("a"), 13));
    // An ApiVersions of the future has header v2; a request nobody knows has none.
    let future = [0, 18, 0, 99, 0, 0, 0, 9, 0xff, 0xff, 0, 0xaa];
    assert_eq!(RequestHeaderView::parse(&future).unwrap().body_offset, 11);
    assert!(matches!(
        check_request(18, 99, &future[11..]),
        Err(FrameError::UnsupportedVersion { min: 0, max: 4, .. })
    ));
    let unknown = [0, 4, 0, 0, 0, 0, 0, 9, 0xff, 0xff];
    assert_eq!(RequestHeaderView::parse(&unknown), Err(FrameError::UnknownApi { api_key: 4 }));
    // Produce 0-2 are advertised and never served: the header still says who asked.
    let produce_v0 = [0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0, 1];
    assert_eq!(RequestHeaderView::parse(&produce_v0).unwrap().body_offset, 10);
    assert!(check_request(0, 0, &produce_v0[10..]).is_err());
}

#[test]
fn the_walk_steps_over_records() {
    let mut request = kafka_protocol::messages::ProduceRequest::default();
    let mut topic = kafka_protocol::messages::produce_request::TopicProduceData::default();
    let mut partition = kafka_protocol::messages::produce_request::PartitionProduceData::default();
    partition.records = Some(Bytes::from(vec![0xff; 1 << 20]));
    topic.partition_data.push(partition);
    request.topic_data.push(topic);
    for version in 3..=12 {
        let mut body = bytes::BytesMut::new();
        request.encode(&mut body, version).unwrap();
        assert_eq!(check_request(0, version, &body), Ok(()));
        assert!(check_request(0, version, &body[..body.len() - 3]).is_err(), "v{version}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The table is the crate's idea of every request too: what is made up from it decodes, to the last byte.
    #[test]
    fn every_legal_request_passes_and_decodes(seed in any::<u64>()) {
        let mut rng = StdRng::seed_from_u64(seed);
        for (key, version) in arbitrary::all_versions() {
            let body = arbitrary::request_body(key, version, &mut || rng.next_u64()).unwrap();
            prop_assert_eq!(check_request(key, version, &body), Ok(()), "{} v{}", key, version);
            let decoded = decode(key, version, &body);
            prop_assert!(matches!(decoded, Ok((_, 0))), "{} v{}: {:?}", key, version, decoded);
        }
    }

    /// The same for responses, made up and damaged.
    #[test]
    fn a_response_passes_only_if_it_decodes(seed in any::<u64>()) {
        let mut rng = StdRng::seed_from_u64(seed);
        for (key, version) in arbitrary::all_versions() {
            let mut body = arbitrary::response_body(key, version, &mut || rng.next_u64()).unwrap();
            prop_assert_eq!(check_response(key, version, &body), Ok(()), "{} v{}", key, version);
            let decoded = decode_response(key, version, &body);
            prop_assert_eq!(&decoded, &Ok(0), "{} v{}", key, version);
            mutate(&mut body, &mut rng);
            if check_response(key, version, &body).is_ok() {
                let decoded = decode_response(key, version, &body);
                prop_assert!(decoded.is_ok(), "{} v{}: {:?}", key, version, decoded);
            }
        }
    }

    /// What passes decodes: neither an abort nor an error is left for the decoder to find. The crate is kinder than Kafka
    /// in some points (null where an older version has none, tag sizes, overlong varints), so the other direction holds for
    /// the rest only.
    #[test]
    fn a_mutated_request_passes_only_if_it_decodes(seed in any::<u64>()) {
        let mut rng = StdRng::seed_from_u64(seed);
        for (key, version) in arbitrary::all_versions() {
            let mut body = arbitrary::request_body(key, version, &mut || rng.next_u64()).unwrap();
            mutate(&mut body, &mut rng);
            match check_request(key, version, &body) {
                Ok(()) => {
                    let decoded = decode(key, version, &body);
                    prop_assert!(decoded.is_ok(), "{} v{}: {:?}", key, version, decoded);
                }
                Err(FrameError::NotUtf8 { .. } | FrameError::TagNotInVersion { .. }) => {
                    prop_assert!(decode(key, version, &body).is_err(), "{} v{}", key, version);
                }
                // Not decoded: it may abort, or the crate reads what Kafka refuses.
                Err(_) => {}
            }
        }
    }

    /// Bytes from anywhere: an answer, and if the header parses, the crate's header is the same.
    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), key in 0_i16..93, version in 0_i16..19) {
        let _ = check_request(key, version, &bytes);
        let mut frame = bytes;
        if frame.len() >= 4 {
            frame[..2].copy_from_slice(&key.to_be_bytes());
            frame[2..4].copy_from_slice(&version.to_be_bytes());
        }
        if let Ok(view) = RequestHeaderView::parse(&frame) {
            let header_version = if version >= api(key).unwrap().flexible_from { 2 } else { 1 };
            let mut rest = Bytes::copy_from_slice(&frame);
            // The crate is stricter with odd client ids.
            if let Ok(header) = RequestHeader::decode(&mut rest, header_version) {
                prop_assert_eq!(header.correlation_id, view.correlation_id);
                prop_assert_eq!(header.client_id.as_deref(), view.client_id);
                prop_assert_eq!(frame.len() - rest.len(), view.body_offset);
            }
        }
    }
}
