#!/usr/bin/env python3
"""The harness against itself, without a broker: a comparison that cannot fail proves nothing."""
import pathlib
import random
import subprocess
import sys
import unittest
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import compare  # noqa: E402
import records  # noqa: E402
import wire  # noqa: E402


def made_up(rng, field, version, nullable=True):
    kind = field["t"]
    if nullable and wire.within(version, field.get("null")) and rng.random() < 0.3:
        return None
    if kind.startswith("[]"):
        return [made_up(rng, {**field, "t": kind[2:], "null": None}, version, False) for _ in range(rng.randrange(3))]
    if "f" in field:
        return {each["n"]: made_up(rng, each, version) for each in field["f"] if wire.within(version, each["v"])}
    return {"string": "héllo", "bytes": b"\0\xff", "records": b"abc", "bool": True, "uuid": uuid.UUID(int=rng.getrandbits(128)),
            "float64": 0.5}.get(kind, rng.randrange(100))


class Harness(unittest.TestCase):
    def test_every_message_of_every_version_is_read_back_as_it_was_written(self):
        rng = random.Random(1)
        for api in wire.SCHEMA["apis"]:
            for message in (api["request"], api["response"]):
                low, high = wire.versions(message["versions"])
                for version in range(low, high + 1):
                    values = made_up(rng, {"t": "struct", "f": message["fields"]}, version)
                    again = wire.decode(message, version, wire.encode(message, version, values))
                    self.assertEqual(values, again, (api["name"], version))

    def test_every_codec_is_read_back(self):
        data = b"abcabcabcabc" * 40 + bytes(range(256))
        for codec in range(5):
            self.assertEqual(records.decompress(codec, records.compress(codec, data)), data)
        # A copy that overlaps itself, in Snappy and in LZ4: "ab" and eight bytes from two back.
        self.assertEqual(records.snappy_block(bytes([10, 1 << 2]) + b"ab" + bytes([(8 - 4) << 2 | 1, 2])), b"ab" * 5)
        out = bytearray()
        records.lz4_block(bytes([0x24]) + b"ab" + bytes([2, 0, 0x00]), out)
        self.assertEqual(bytes(out), b"ab" * 5)

    def test_checksums_are_the_known_ones(self):
        self.assertEqual(records.crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(records.xxh32(b""), 0x02CC5D05)
        self.assertEqual(records.xxh32(b"abc"), 0x32D153FF)

    def test_one_changed_field_is_one_difference(self):
        kafka = [["plain", {"Topics": {"t": {"ErrorCode": 0, "Partitions": {"0": {"Offset": 5}}}}}]]
        other = [["plain", {"Topics": {"t": {"ErrorCode": 0, "Partitions": {"0": {"Offset": 6}, "1": {}}}}}]]
        self.assertEqual(compare.differences(kafka, kafka), [])
        self.assertEqual(compare.differences(kafka, other), [
            ("plain/Topics/t/Partitions/0/Offset", 5, 6), ("plain/Topics/t/Partitions/1", compare.MISSING, {})])
        self.assertEqual(compare.differences(kafka, []), [("plain", kafka[0][1], compare.MISSING)])
        self.assertEqual(compare.differences(kafka, [["plain", "closed"]]), [("plain", kafka[0][1], "closed")])

    def test_null_and_empty_differ(self):
        self.assertEqual(len(compare.differences([["a", {"x": None}]], [["a", {"x": []}]])), 1)

    def test_a_meant_difference_has_a_reason_and_an_api(self):
        for entry in compare.Meant().entries:
            self.assertTrue(entry["reason"] and entry["api"], entry)

    def test_the_rust_table_is_what_the_schema_says(self):
        subprocess.run([sys.executable, HERE / "make_schema.py", "--check"], check=True)


if __name__ == "__main__":
    unittest.main()
