"""A group of three reads a topic while one after the other leaves, is killed, and comes: nothing is lost, and all of it is
seen again by nobody who committed it."""
import collections, json, os, subprocess, sys, threading, time
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

TOPIC, GROUP, COUNT = f"app.{sys.argv[3]}", "readers/\u00e4", 3000


def member(server, strategy):
    """One process of the group: commits what it has printed, after each message batch."""
    consumer = Consumer({"bootstrap.servers": server, "group.id": GROUP, "auto.offset.reset": "earliest",
                         "enable.auto.commit": False, "session.timeout.ms": 3000, "heartbeat.interval.ms": 300,
                         "partition.assignment.strategy": strategy})
    consumer.subscribe([TOPIC], on_assign=lambda _, places: print("assigned", len(places), flush=True))
    print("started", flush=True)
    while True:
        messages = [message for message in consumer.consume(40, 0.2) if not message.error()]
        for message in messages:
            print("got", message.partition(), message.offset(), message.value().decode(), flush=True)
        if messages:
            try:
                consumer.commit(asynchronous=False)
            except Exception as error:
                print("not committed", error, flush=True)
        if os.path.exists(sys.argv[4]):
            consumer.close()
            print("left", flush=True)
            os._exit(0)


class Process:
    def __init__(self, server, strategy, name):
        self.stop = f"{sys.argv[2]}/{name}"
        self.seen, self.assigned = [], 0
        self.process = subprocess.Popen([sys.executable, __file__, "member", server, strategy, self.stop],
                                        stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            words = line.split()
            if words[0] == "got":
                self.seen.append((int(words[1]), int(words[2]), words[3]))
            elif words[0] == "assigned":
                self.assigned += 1

    def leave(self):
        open(self.stop, "w").close()
        assert self.process.wait(30) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()


def main(server, strategy):
    admin = AdminClient({"bootstrap.servers": server})
    for future in admin.create_topics([NewTopic(TOPIC, 4, 1)]).values():
        future.result(20)
    group = [Process(server, strategy, f"first{number}") for number in range(3)]
    done = []

    def produce():
        producer = Producer({"bootstrap.servers": server, "enable.idempotence": True, "linger.ms": 1})
        for number in range(COUNT):
            producer.produce(TOPIC, str(number), partition=number % 4)
            producer.poll(0)
            time.sleep(0.003)
        assert producer.flush(30) == 0

    thread = threading.Thread(target=produce)
    thread.start()
    time.sleep(3)
    described = list(admin.describe_consumer_groups([GROUP]).values())[0].result(10)
    members = len(described.members)
    group[0].leave()
    time.sleep(1.5)
    group[1].kill()
    time.sleep(1)
    group += [Process(server, strategy, f"second{number}") for number in range(2)]
    thread.join()
    until = time.time() + 60
    wanted = {str(number) for number in range(COUNT)}
    while time.time() < until and {value for one in group for _, _, value in one.seen} != wanted:
        time.sleep(0.2)
    time.sleep(1)
    for one in group[2:]:
        one.leave()
    seen = collections.Counter(value for one in group for _, _, value in one.seen)
    committed = list(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)]).values())[0].result(10)
    listed = [one.group_id for one in admin.list_consumer_groups().result(10).valid]
    state = list(admin.describe_consumer_groups([GROUP]).values())[0].result(10).state.name
    print(json.dumps({
        "members": members,
        "lost": len(wanted - set(seen)),
        # What the killed one had printed and not committed comes again; there are at most 40 of each of its partitions.
        "again": sum(count - 1 for count in seen.values()),
        "committed": sorted(place.offset for place in committed.topic_partitions),
        "is_listed": GROUP in listed,
        "state": state,
    }))
    for future in admin.delete_consumer_groups([GROUP]).values():
        future.result(10)
    os._exit(0)


if sys.argv[1] == "member":
    member(sys.argv[2], sys.argv[3])
else:
    main(sys.argv[1], sys.argv[3])
