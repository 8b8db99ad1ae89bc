"""Topics that scenarios only read."""


def three_batches(t):
    """Partition 0 holds six records in three batches, offsets 0-5, timestamps t0+10…12, t0+20…21, t0+30; partition 1 is empty."""

    def fill(t, topic):
        t.produce(topic, 0, t.batch(3, at=10))
        t.produce(topic, 0, t.batch(2, at=20))
        t.produce(topic, 0, t.batch(1, at=30, headers=((b"h", b"1"), (b"h", None)), key=None))

    return t.fixture("three-batches", fill)
