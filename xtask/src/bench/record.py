"""The peers of a recording: the same flows as Parquet, Arrow IPC and nfdump files, and what becomes of each when it is cut
or changed. `cargo xtask bench record` runs this; it prints a line of JSON.

Arguments: binary, recording, small recording, directory, trials.
"""

import calendar, json, os, random, socket, struct, subprocess, sys, time

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

BINARY, RECORDING, SMALL, DIRECTORY, TRIALS = *sys.argv[1:5], int(sys.argv[5])
RESULT = {}


def at(name):
    return os.path.join(DIRECTORY, name)


def run(*args, **options):
    return subprocess.run(args, capture_output=True, check=False, **options)


def report(file):
    """Lines of the report: flows, and the others."""
    out = run(BINARY, "report", file, "--format", "ndjson", "--no-fold").stdout
    lines = out.splitlines()
    return [line for line in lines if line.startswith(b'{"type":"flow"')], lines


def table_of(lines):
    """A row a flow: tuples, counters, times in nanoseconds, rules."""
    rows = []
    for line in lines:
        flow = json.loads(line)
        orig, reply = flow["original"], flow.get("reply") or {}
        counters = flow.get("counters") or {}
        original, answer = counters.get("original") or {}, counters.get("reply") or {}
        rules = []
        for path in flow.get("traversals") or []:
            for step in path.get("steps") or []:
                rules.append("/".join(str(step.get(key)) for key in ("label", "chain", "position", "text")))
        rows.append({
            "src": orig.get("src"), "dst": orig.get("dst"), "sport": orig.get("sport"), "dport": orig.get("dport"),
            "proto": flow.get("protocol"), "nat_src": reply.get("dst"), "nat_sport": reply.get("dport"),
            "packets": original.get("packets"), "bytes": original.get("bytes"),
            "reply_packets": answer.get("packets"), "reply_bytes": answer.get("bytes"),
            "first_ns": parse(flow["first_seen"]), "last_ns": parse(flow["last_seen"]), "rules": rules,
        })
    return pa.Table.from_pylist(rows)


def parse(text):
    whole, fraction = text.rstrip("Z").split(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def parquet(table, file):
    pq.write_table(table, file, compression="zstd", compression_level=3, use_dictionary=True)


def arrow(table, file):
    with ipc.new_file(file, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as out:
        out.write_table(table, max_chunksize=8192)


def timed(work):
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def damage(name, file, read, whole):
    """Cuts and changed bits: the share of flows that is read, and answers that differ and say nothing."""
    good, chance = open(file, "rb").read(), random.Random(1)
    bad, cuts, flips, silent = at("damaged.rec"), 0.0, 0.0, [0, 0]
    for n in range(2 * TRIALS):
        if n < TRIALS:
            data = good[: chance.randrange(1, len(good))]
        else:
            data = bytearray(good)
            bit = chance.randrange(len(good) * 8)
            data[bit // 8] ^= 1 << (bit % 8)
        with open(bad, "wb") as out:
            out.write(data)
        try:
            rows, different, told = read(bad)
        except Exception:
            rows, different, told = 0, True, True
        if different and not told:
            silent[n >= TRIALS] += 1
        if n < TRIALS:
            cuts += rows / whole / (len(data) / len(good))
        else:
            flips += rows / whole
    RESULT[name] = {"cut": min(cuts / TRIALS, 1.0), "flipped": flips / TRIALS, "silent_cuts": silent[0], "silent_flips": silent[1]}


# NetFlow v9 with post-NAT fields: RFC 3954, and the numbers of IANA.
FIELDS = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (23, 8), (24, 8), (22, 4), (21, 4), (225, 4), (227, 2)]


def v9(table, to):
    rows = table.to_pylist()
    base = min(row["first_ns"] for row in rows) // 1_000_000
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    template = struct.pack("!HH", 256, len(FIELDS)) + b"".join(struct.pack("!HH", *field) for field in FIELDS)
    template = struct.pack("!HH", 0, 4 + len(template)) + template
    now = base // 1000 + 4000
    for sequence, begin in enumerate(range(0, len(rows), 20)):
        part, data = rows[begin : begin + 20], b""
        for row in part:
            packed = socket.inet_aton
            data += packed(row["src"]) + packed(row["dst"]) + struct.pack("!HHB", row["sport"], row["dport"], 6)
            data += struct.pack("!QQQQ", row["packets"] or 0, row["bytes"] or 0, row["reply_packets"] or 0, row["reply_bytes"] or 0)
            data += struct.pack("!II", row["first_ns"] // 1_000_000 - base, row["last_ns"] // 1_000_000 - base)
            data += packed(row["nat_src"]) + struct.pack("!H", row["nat_sport"])
        padding = -len(data) % 4
        body = template + struct.pack("!HH", 256, 4 + len(data) + padding) + data + b"\0" * padding
        sender.sendto(struct.pack("!HHIIII", 9, 1 + len(part), 4_000_000, now, sequence, 1) + body, to)
        time.sleep(0.0005)


def nfdump(table, name, options):
    directory = at(name)
    os.makedirs(directory, exist_ok=True)
    collector = subprocess.Popen(
        ["nfcapd", "-w", directory, "-t", "3600", "-b", "127.0.0.1", "-p", "9995", "-B", "100000000", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    time.sleep(1)
    v9(table, ("127.0.0.1", 9995))
    time.sleep(2)
    collector.terminate()
    collector.wait()
    files = [os.path.join(directory, file) for file in os.listdir(directory)]
    return max(files, key=os.path.getsize)


def count(file):
    out = run("nfdump", "-q", "-r", file, "-o", "csv").stdout.splitlines()
    return [line for line in out if line.count(b",") > 5 and line[:1].isdigit()]


def main():
    flows, lines = report(RECORDING)
    RESULT["flows"] = len(flows)
    with open(at("flows.ndjson"), "wb") as out:
        out.write(b"\n".join(lines))
    run("zstd", "-3", "-q", "-f", at("flows.ndjson"))
    RESULT["ndjson_bytes"] = os.path.getsize(at("flows.ndjson.zst"))
    table = table_of(flows)
    for name, write, read in [("parquet", parquet, pq.read_table), ("arrow", arrow, lambda file: ipc.open_file(file).read_all())]:
        written, _ = timed(lambda: write(table, at(name)))
        taken, _ = timed(lambda: read(at(name)))
        RESULT[name + "_bytes"] = os.path.getsize(at(name))
        RESULT[name + "_written"], RESULT[name + "_read"] = len(flows) / written, len(flows) / taken
    small, _ = report(SMALL)
    few = table_of(small)
    for name, options in [("nfdump_lzo", ["-z"]), ("nfdump_zstd", ["-z=zstd"])]:
        try:
            file = nfdump(table, name, options)
            taken, found = timed(lambda: count(file))
            RESULT[name] = {"bytes": os.path.getsize(file), "flows": len(found), "read": len(found) / taken}
        except Exception as error:
            RESULT[name] = {"error": str(error)}
    parquet(few, at("small.parquet"))
    arrow(few, at("small.arrow"))
    whole = len(few)

    def rows_of(read):
        def rows(file):
            found = read(file)
            return found.num_rows, not found.equals(few), False
        return rows

    damage("damage_parquet", at("small.parquet"), rows_of(pq.read_table), whole)
    damage("damage_arrow", at("small.arrow"), rows_of(lambda file: ipc.open_file(file).read_all()), whole)

    def ours(file):
        found, lines = report(file)
        told = any(b"left out" in line or b"has no end" in line or b"missing" in line for line in lines[:1]) or not lines
        return len(found), found != small, told

    damage("damage_ours", SMALL, ours, whole)
    try:
        file = nfdump(few, "small_nfdump", ["-z"])
        good = count(file)

        def theirs(file):
            out = run("nfdump", "-q", "-r", file, "-o", "csv")
            found = [line for line in out.stdout.splitlines() if line.count(b",") > 5 and line[:1].isdigit()]
            return len(found), found != good, out.returncode != 0 or bool(out.stderr)

        damage("damage_nfdump", file, theirs, max(len(good), 1))
    except Exception as error:
        RESULT["damage_nfdump"] = {"error": str(error)}
    print(json.dumps(RESULT))


main()
