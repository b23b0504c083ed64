"""Produces keys, values and headers of all kinds with every codec, idempotently and not, and reads them back byte for byte;
then lists, asks for offsets by time, creates topics, and is refused what is not allowed."""
import json, os, sys, time
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

server = {"bootstrap.servers": sys.argv[1]}
admin = AdminClient(server)


def outcome(future):
    try:
        future.result(20)
        return "made"
    except KafkaException as error:
        return error.args[0].name()


created = admin.create_topics([NewTopic("app.codecs", 3, 1), NewTopic("closed", 1, 1), NewTopic("github.raw", 4, 1)])
created = {topic: outcome(future) for topic, future in created.items()}
assert created == {"app.codecs": "made", "closed": "POLICY_VIOLATION", "github.raw": "TOPIC_ALREADY_EXISTS"}, created

sent = {partition: [] for partition in range(3)}
for idempotent in [False, True]:
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        failed = []
        producer = Producer({**server, "compression.type": codec, "linger.ms": 20, "enable.idempotence": idempotent})
        for number in range(300):
            key = [None, b"", b"\xff\x00key", f"schl\u00fcssel {number}".encode()][number % 4]
            value = [None, b"", os.urandom(2000), f"{codec} {number} ".encode() * 300][number // 4 % 4]
            headers = [[], [("id", f"{codec}-{idempotent}-{number}".encode()), ("id", None), ("b", b"\xfe")]][number % 2]
            partition = number % 3
            sent[partition].append((key, value, headers or None))
            producer.produce("app.codecs", value, key, partition, headers=headers,
                             on_delivery=lambda error, _: error and failed.append(str(error)))
        assert producer.flush(30) == 0 and not failed, failed


def read(topic, partitions, offsets, count):
    consumer = Consumer({**server, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True})
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in zip(partitions, offsets)])
    messages, until = [], time.time() + 30
    while len(messages) < count and time.time() < until:
        messages += [message for message in consumer.consume(500, 0.5) if not message.error()]
    consumer.close()
    return messages


back = {partition: [] for partition in range(3)}
for message in read("app.codecs", range(3), [0, 0, 0], 3000):
    assert message.offset() == len(back[message.partition()]), "offsets without a hole"
    back[message.partition()].append((message.key(), message.value(), message.headers()))
for partition in range(3):
    assert back[partition] == sent[partition], f"partition {partition} came back otherwise"

# From any offset, also in the middle of a batch.
for offset in [1, 7, 499, 998, 999]:
    message = read("app.codecs", [1], [offset], 1)[0]
    assert message.offset() == offset and message.value() == sent[1][offset][1]

# By time: what was produced after a moment begins at the offset that this moment has.
time.sleep(0.05)
moment = int(time.time() * 1000)
producer = Producer(server)
producer.produce("app.codecs", b"late", partition=2)
producer.flush(10)
consumer = Consumer({**server, "group.id": "unused"})
found = consumer.offsets_for_times([TopicPartition("app.codecs", 2, moment), TopicPartition("app.codecs", 0, moment),
                                    TopicPartition("app.codecs", 1, 0)], 10)
assert [place.offset for place in found][0::2] == [1000, 0], found
assert consumer.get_watermark_offsets(TopicPartition("app.codecs", 2), 10) == (0, 1001)
latest = admin.list_offsets({TopicPartition("app.codecs", 2): OffsetSpec.max_timestamp()})
assert list(latest.values())[0].result(10).offset == 1000

metadata = consumer.list_topics(timeout=10)
assert len(metadata.topics["github.raw"].partitions) == 4 and len(metadata.brokers) == 1
config = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, "app.codecs")])
config = list(config.values())[0].result(10)
assert config["message.timestamp.type"].value == "LogAppendTime"
assert admin.describe_cluster().result(10).cluster_id == "databroker"

refused = []
producer = Producer({**server, "message.timeout.ms": 5000})
producer.produce("dns.raw", b"x", on_delivery=lambda error, _: refused.append(error.name()))
producer.flush(10)
assert refused == ["TOPIC_AUTHORIZATION_FAILED"], refused
transactional = Producer({**server, "transactional.id": "t"})
try:
    transactional.init_transactions(10)
    raise AssertionError("there are no transactions")
except KafkaException as error:
    assert error.args[0].name() == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", error
print(json.dumps({"records": sum(map(len, back.values()))}))
os._exit(0)
