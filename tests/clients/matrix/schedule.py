"""Runs the matrix: create, produce, the referee's look at the log, then all readers on all writers."""

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from . import cases, records, wire
from .cases import CASES, CODECS, PARTITIONS
from .table import Cell, Table

# No phase of one client takes as long; a client that hangs is ended and its cells fail.
CLIENT_TIMEOUT_SECONDS = 150
# Below this the referee decodes a topic's records itself; larger ones the readers compare.
REFEREE_RECORDS = 5000


class Matrix:
    """One run over `clients` against `bootstrap`; `work` is a directory for jobs, answers and logs."""

    def __init__(self, clients, case_names, bootstrap, work, build, source, seed, prefix, workers, say, plant=None):
        self.clients, self.bootstrap, self.work = list(clients), bootstrap, work
        self.cases = [case for case in CASES if case.name in case_names]
        self.build, self.source, self.seed, self.prefix = build, source, seed, prefix
        self.workers, self.say, self.plant = workers, say, plant
        self.data = {case.name: cases.generate(case, seed) for case in self.cases}
        self.by_case = Table("client × case", ["create"] + [case.name for case in self.cases] + ["by-time", "read"])
        self.by_reader = Table("reader × writer", [client.name for client in self.clients])
        self.digests = {}
        # (writer, case) -> per partition the list of (offset, record) in the log, and whether times are known
        self.stored = {}
        self.largest_batch = 0

    # --- running a client -------------------------------------------------------------------------------

    def command(self, client) -> list:
        return [part.format(src=self.source, build=self.build) for part in client.command]

    def call(self, client, command: str, lines: list, label: str = "") -> tuple:
        """Runs one command of a client: (answers by key columns, complaint or "").

        An answer's key is its columns up to the job's width of key for that command.
        """
        base = os.path.join(self.work, f"{client.name}.{command}{label}")
        with open(base + ".job", "w", encoding="utf-8") as file:
            file.writelines("\t".join(str(column) for column in line) + "\n" for line in lines)
        started = time.monotonic()
        with open(base + ".log", "wb") as log:
            try:
                done = subprocess.run(
                    self.command(client) + [command, self.bootstrap, base + ".job"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, timeout=CLIENT_TIMEOUT_SECONDS, check=False,
                )
                output, complaint = done.stdout, "" if done.returncode == 0 else f"exit code {done.returncode}"
            except subprocess.TimeoutExpired as error:
                output, complaint = error.stdout or b"", f"ended after {CLIENT_TIMEOUT_SECONDS} s"
            except OSError as error:
                output, complaint = b"", str(error)
        with open(base + ".out", "wb") as file:
            file.write(output)
        keys = {"create-topics": 1, "produce": 1, "consume": 2, "list-offsets": 3}[command]
        answers = {}
        for line in output.decode(errors="replace").splitlines():
            state, *columns = line.split("\t")
            if state in ("ok", "error") and len(columns) >= keys:
                answers[tuple(columns[:keys])] = (state, columns[keys:])
        if complaint:
            complaint += f"; see {base}.log"
        self.say(f"  {client.name} {command}: {time.monotonic() - started:.1f} s {complaint}")
        return answers, complaint

    def each_client(self, name: str, work) -> None:
        """Runs one phase for each client; a broker that drops the referee fails that client's cell, not the run."""

        def guarded(client) -> None:
            try:
                work(client)
            except (OSError, ValueError) as error:
                column = name if name in self.by_case.columns else "create"
                self.by_case.put(client.name, column, Cell("FAIL", f"referee, while {name}: {type(error).__name__}: {error}"))

        with ThreadPoolExecutor(self.workers) as pool:
            for future in [pool.submit(guarded, client) for client in self.clients]:
                future.result()

    def topic(self, client, case) -> str:
        return f"{self.prefix}-{client.name}-{case.name}"

    # --- writing ----------------------------------------------------------------------------------------

    def writes(self, client, case) -> bool:
        return case.name not in client.lacks_writing

    def create(self, client) -> None:
        written = [case for case in self.cases if self.writes(client, case)]
        topics = [(self.topic(client, case), PARTITIONS, case.config) for case in written]
        with wire.Connection(self.bootstrap) as referee:
            if "create" in client.lacks:
                self.by_case.put(client.name, "create", Cell("n/a", client.lacks["create"]))
                self._create_missing(referee, topics)
                return
            lines = [(name, partitions, ",".join(f"{k}={v}" for k, v in config.items())) for name, partitions, config in topics]
            answers, complaint = self.call(client, "create-topics", lines)
            wrong = []
            counts = self.partition_counts(referee, [name for name, _, _ in topics])
            for name, partitions, config in topics:
                state, columns = answers.get((name,), ("error", [complaint or "no answer"]))
                if state != "ok":
                    wrong.append(f"{name}: {' '.join(columns)}")
                elif counts.get(name) != partitions:
                    wrong.append(f"{name}: said ok, yet the broker has {counts.get(name)} partitions, expected {partitions}")
                elif (found := _config_of(self.bootstrap, name, config)) != config:
                    wrong.append(f"{name}: config is {found}, expected {config}")
            self.by_case.put(client.name, "create", Cell("FAIL", "; ".join(wrong)) if wrong else Cell("pass"))
            self._create_missing(referee, [topic for topic in topics if counts.get(topic[0], 0) <= 0])

    def partition_counts(self, referee, names: list) -> dict:
        """A broker may answer CreateTopics before its own metadata shows them: asks until all are there, or 10 s."""
        deadline = time.monotonic() + 10
        while True:
            counts = referee.partition_counts(names)
            if min(counts.values(), default=0) > 0 or time.monotonic() > deadline:
                return counts
            time.sleep(0.05)

    def _create_missing(self, referee, topics: list) -> None:
        """The other cases go on where a client failed to create its topics."""
        if topics:
            failed = {name: code for name, code in referee.create_topics(topics).items() if code not in (0, 36)}
            if failed:
                self.say(f"  the referee could not create {failed}")

    def produce(self, client) -> None:
        for case in self.cases:
            if not self.writes(client, case):
                self.by_case.put(client.name, case.name, Cell("n/a", client.lacks_writing[case.name]))
        written = [case for case in self.cases if self.writes(client, case)]
        answers, complaint = self.call(
            client,
            "produce",
            [
                (self.topic(client, case), self.codec_asked(case), int(case.idempotent), case.batch_records, len(self.data[case.name]), self.records_path(case))
                for case in written
            ],
        )
        with wire.Connection(self.bootstrap) as referee:
            for case in written:
                state, columns = answers.get((self.topic(client, case),), ("error", [complaint or "no answer"]))
                if state != "ok":
                    cell = Cell("FAIL", " ".join(columns))
                elif columns != [str(len(self.data[case.name]))]:
                    cell = Cell("FAIL", f"{columns} records acknowledged, expected {len(self.data[case.name])}")
                else:
                    try:
                        cell = self.judge_log(referee, client, case)
                    except (ValueError, OSError, ConnectionError) as error:
                        cell = Cell("FAIL", f"referee: {error}")
                self.by_case.put(client.name, case.name, cell)

    def codec_asked(self, case) -> str:
        """The case's codec, unless a wrong one is planted."""
        return ("gzip" if case.codec == "none" else "none") if self.plant == "codec" else case.codec

    def records_path(self, case) -> str:
        return os.path.join(self.work, f"{case.name}.records")

    def judge_log(self, referee, client, case) -> Cell:
        """Reads the stored batches: codec, count, producer's sequence, and the records where no codec hides them."""
        data, topic, notes = self.data[case.name], self.topic(client, case), []
        stored, known = {}, True
        for partition in range(PARTITIONS):
            expected = cases.with_offsets(data, partition)
            batches = referee.batches(topic, partition, len(expected))
            if not expected and not batches:
                stored[partition] = []
                continue
            found = sum(batch.record_count for batch in batches)
            if found != len(expected):
                return Cell("FAIL", f"partition {partition} holds {found} records, expected {len(expected)}")
            codecs = sorted({batch.codec for batch in batches})
            if codecs != [case.codec]:
                return Cell("FAIL", f"partition {partition} is stored as {', '.join(codecs)}, expected {case.codec}")
            if case.idempotent and (wrong := _sequence_gap(batches)):
                return Cell("FAIL", f"partition {partition}: {wrong}")
            if case.idempotent and len(batches) < 2:
                return Cell("FAIL", f"partition {partition}: one batch proves no sequence")
            readable = case.codec in ("none", "gzip") and (len(expected) <= REFEREE_RECORDS or not client.stamps)
            if readable:
                pairs = [pair for batch in batches for pair in wire.records_of(batch, partition)]
                wanted = expected
                if not client.stamps:
                    # What time it wrote is the log's to say; the readers must agree with the log.
                    wanted = [(offset, record._replace(timestamp=got[1].timestamp)) for (offset, record), got in zip(expected, pairs)]
                if pairs != wanted:
                    return Cell("FAIL", f"partition {partition}, in the log: {records.first_difference(wanted, pairs)}")
                expected = wanted
            elif not client.stamps:
                known = False
            stored[partition] = expected
            largest = max(batch.record_count for batch in batches)
            if case.name == "100k":
                # How a client cuts its batches may depend on the machine's load; that a whole one is among them is
                # asked of all clients together, in `run`.
                notes.append(f"{len(batches)} batch(es), the largest of {largest} records")
                self.largest_batch = max(self.largest_batch, largest)
        self.stored[client.name, case.name] = (stored, known)
        return Cell("pass", "; ".join(notes))

    # --- reading ----------------------------------------------------------------------------------------

    def expected_digest(self, writer, case, partition: int, start: int) -> str:
        stored, known = self.stored[writer.name, case.name]
        # Writers that choose their timestamps all store the same, so one digest serves them all.
        key = (case.name, partition, start) if writer.stamps else (writer.name, case.name, partition, start)
        if key not in self.digests:
            self.digests[key] = records.digest(stored[partition][start:], known)
        return self.digests[key]

    def read(self, reader) -> None:
        if "read" in reader.lacks:
            self.by_case.put(reader.name, "read", Cell("n/a", reader.lacks["read"]))
            for writer in self.clients:
                if writer is not reader:
                    self.by_reader.put(reader.name, writer.name, Cell("n/a", reader.lacks["read"]))
            return
        lines, wanted = [], {}
        for writer in self.clients:
            if writer is reader:
                continue
            for case in self.cases:
                if (writer.name, case.name) not in self.stored or case.name in reader.lacks_reading:
                    continue
                stored, known = self.stored[writer.name, case.name]
                for partition, pairs in stored.items():
                    if not pairs:
                        continue
                    # From inside a batch too: brokers send it whole, the client must skip its first records.
                    start = 3 if case.name in CODECS and partition == 1 else 0
                    topic = self.topic(writer, case)
                    lines.append((topic, partition, start, len(pairs), int(known), "-"))
                    wanted[topic, str(partition)] = (writer, case, partition, start)
        answers, complaint = self.call(reader, "consume", lines) if lines else ({}, "nothing to read")
        wrong, differing = {}, []
        for key, (writer, case, partition, start) in wanted.items():
            state, columns = answers.get(key, ("error", [complaint or "no answer"]))
            stored, _ = self.stored[writer.name, case.name]
            what = f"{case.name}-{partition}"
            if state != "ok":
                wrong.setdefault(writer.name, []).append(f"{what}: {' '.join(columns)}")
            elif columns != [str(len(stored[partition]) - start), self.expected_digest(writer, case, partition, start)]:
                wrong.setdefault(writer.name, []).append(f"{what}: {columns[0]} records, another digest")
                differing.append((writer, case, partition, start))
        for writer, case, partition, start in differing[:3]:
            wrong[writer.name].insert(0, self.explain(reader, writer, case, partition, start))
        judged = {writer.name for writer, *_ in wanted.values()}
        for writer in self.clients:
            if writer is not reader:
                if writer.name in wrong:
                    cell = Cell("FAIL", "; ".join(wrong[writer.name][:6]))
                else:
                    cell = Cell("pass") if writer.name in judged else Cell("-", "nothing of it to read")
                self.by_reader.put(reader.name, writer.name, cell)
        if wrong:
            self.by_case.put(reader.name, "read", Cell("FAIL", f"writers {', '.join(wrong)}, see the second table"))
        else:
            self.by_case.put(reader.name, "read", Cell("pass", f"{len(wanted)} partitions") if wanted else Cell("-", complaint))

    def explain(self, reader, writer, case, partition: int, start: int) -> str:
        """Reads one partition again, with its bytes kept, and says where it parts from the log."""
        stored, known = self.stored[writer.name, case.name]
        label = f".{writer.name}.{case.name}.{partition}"
        dump = os.path.join(self.work, f"{reader.name}{label}.dump")
        line = (self.topic(writer, case), partition, start, len(stored[partition]), int(known), dump)
        self.call(reader, "consume", [line], label)
        try:
            with open(dump, "rb") as file:
                found = records.parse_stream(file.read())
        except (OSError, ValueError) as error:
            return f"{case.name}-{partition} once more: {error}"
        expected = records.parse_stream(records.stream(stored[partition][start:], known))
        return f"{case.name}-{partition} once more: {records.first_difference(expected, found)}"

    def ask_times(self, client) -> None:
        """Offsets by timestamp, on every writer's topic of timestamps."""
        case = next((case for case in self.cases if case.name == "timestamps"), None)
        if "by-time" in client.lacks:
            self.by_case.put(client.name, "by-time", Cell("n/a", client.lacks["by-time"]))
            return
        lines, wanted = [], {}
        for writer in self.clients:
            if case is None or (writer.name, case.name) not in self.stored:
                continue
            for partition in range(PARTITIONS):
                end = len(cases.with_offsets(self.data[case.name], partition))
                for timestamp, offset in cases.by_time(self.data[case.name], partition):
                    if offset == -1 and client.past_end == "end":
                        offset = end
                    lines.append((self.topic(writer, case), partition, timestamp))
                    wanted[self.topic(writer, case), str(partition), str(timestamp)] = offset
        if not lines:
            self.by_case.put(client.name, "by-time", Cell("-", "no topic of timestamps was written"))
            return
        answers, complaint = self.call(client, "list-offsets", lines)
        wrong = []
        for key, offset in wanted.items():
            state, columns = answers.get(key, ("error", [complaint or "no answer"]))
            if state != "ok" or columns != [str(offset)]:
                wrong.append(f"{' '.join(key)}: {' '.join(columns)}, expected {offset}")
        detail = f"{len(wrong)} of {len(wanted)}: {'; '.join(wrong[:4])}" if wrong else f"{len(wanted)} questions"
        self.by_case.put(client.name, "by-time", Cell("FAIL" if wrong else "pass", detail))

    # --- the whole --------------------------------------------------------------------------------------

    def run(self) -> list:
        """Runs all phases; returns the tables. `times` holds each phase's seconds."""
        for case in self.cases:
            records.write_file(self.records_path(case), self.data[case.name])
            if self.plant:
                # The clients have their files; from here on the expectation is wrong, and the net must say so.
                self.data[case.name] = cases.plant(self.plant, self.data[case.name])
        self.times = {}
        for name, phase in (("create", self.create), ("produce", self.produce), ("by-time", self.ask_times), ("read", self.read)):
            started = time.monotonic()
            self.say(f"{name}:")
            self.each_client(name, phase)
            self.times[name] = round(time.monotonic() - started, 1)
        if "100k" in self.data and self.largest_batch < cases.MANY:
            for client in self.clients:
                self.by_case.put(client.name, "100k", Cell("FAIL", f"no client's stored batch has {cases.MANY} records, the largest {self.largest_batch}"))
        for table in (self.by_case, self.by_reader):
            order = {client.name: index for index, client in enumerate(self.clients)}
            table.rows = dict(sorted(table.rows.items(), key=lambda row: order[row[0]]))
        return [self.by_case, self.by_reader]


def _config_of(bootstrap: str, topic: str, config: dict):
    """A topic's values for the keys of `config`, or what went wrong; on a connection of its own."""
    try:
        with wire.Connection(bootstrap) as referee:
            return referee.topic_config(topic, list(config))
    except (OSError, ValueError) as error:
        return str(error)


def _sequence_gap(batches: list) -> str:
    """What is wrong with an idempotent producer's batches, or nothing."""
    first = batches[0]
    expected = 0
    for batch in batches:
        if batch.producer_id < 0 or batch.producer_epoch < 0:
            return f"batch at offset {batch.base_offset} has no producer id"
        if (batch.producer_id, batch.producer_epoch) != (first.producer_id, first.producer_epoch):
            return f"batch at offset {batch.base_offset} is of another producer or epoch"
        if batch.base_sequence != expected:
            return f"batch at offset {batch.base_offset} has sequence {batch.base_sequence}, expected {expected}"
        expected += batch.record_count
    return ""
