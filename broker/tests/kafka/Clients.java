// What Kafka's own Java client does with the embedded log: lists, produces idempotently with every codec, consumes, joins a
// group, seeks by time, and administers. Started as one file: java -cp 'JARS/*' Clients.java HOST:PORT
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

public class Clients {
    static final String TOPIC = "app.java";
    static final int COUNT = 500;
    static String server;

    public static void main(String[] arguments) throws Exception {
        server = arguments[0];
        try (Admin admin = Admin.create(settings())) {
            check("DataBroker".equalsIgnoreCase(admin.describeCluster().clusterId().get()), "the cluster's id");
            check(admin.listTopics().names().get().contains("github.raw"), "github.raw is listed");
            admin.createTopics(List.of(new NewTopic(TOPIC, 2, (short) 1))).all().get();
            check("PolicyViolationException".equals(refusal(admin, "closed")), "closed may not be created");
            check("TopicExistsException".equals(refusal(admin, TOPIC)), "it is there");
            check(admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC).partitions().size() == 2, "partitions");
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
            Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            check("LogAppendTime".equals(config.get("message.timestamp.type").value()), "the kind of times");
            Map<String, byte[]> sent = produce();
            consume(admin, sent);
            refuseTransactions();
        }
        System.out.println("{\"records\": " + 5 * COUNT + "}");
    }

    static Properties settings() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", server);
        settings.put("request.timeout.ms", "15000");
        settings.put("default.api.timeout.ms", "20000");
        return settings;
    }

    static String refusal(Admin admin, String topic) throws InterruptedException {
        try {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            return "none";
        } catch (ExecutionException refused) {
            return refused.getCause().getClass().getSimpleName();
        }
    }

    static Map<String, byte[]> produce() throws Exception {
        Map<String, byte[]> sent = new HashMap<>();
        Random random = new Random(7);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            Properties settings = settings();
            settings.put("enable.idempotence", "true");
            settings.put("compression.type", codec);
            settings.put("linger.ms", "5");
            try (KafkaProducer<String, byte[]> producer =
                    new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
                List<java.util.concurrent.Future<RecordMetadata>> answers = new ArrayList<>();
                for (int number = 0; number < COUNT; number++) {
                    byte[] body = number % 3 == 0 ? new byte[1500] : (codec + " text ").repeat(number).getBytes(StandardCharsets.UTF_8);
                    if (number % 3 == 0) random.nextBytes(body);
                    ProducerRecord<String, byte[]> record = new ProducerRecord<>(TOPIC, codec + number, body);
                    record.headers().add("codec", codec.getBytes(StandardCharsets.UTF_8));
                    sent.put(codec + number, body);
                    answers.add(producer.send(record));
                }
                for (var answer : answers) check(answer.get().hasOffset(), "every record has an offset");
            }
        }
        return sent;
    }

    static void consume(Admin admin, Map<String, byte[]> sent) throws Exception {
        Properties settings = settings();
        settings.put("group.id", "java");
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
        Map<String, byte[]> seen = new HashMap<>();
        try (var first = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
                var second = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            long until = System.currentTimeMillis() + 40_000;
            first.subscribe(List.of(TOPIC));
            second.subscribe(List.of(TOPIC));
            while ((seen.size() < sent.size() || second.assignment().size() != 1 || first.assignment().size() != 1)
                    && System.currentTimeMillis() < until) {
                for (var consumer : List.of(first, second)) {
                    for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                        seen.put(record.key(), record.value());
                        byte[] codec = record.headers().lastHeader("codec").value();
                        check(record.key().startsWith(new String(codec, StandardCharsets.UTF_8)), "headers");
                    }
                    consumer.commitSync();
                }
            }
            check(first.assignment().size() == 1 && second.assignment().size() == 1, "the group shares the partitions");
            check(seen.size() == sent.size(), "seen " + seen.size() + " of " + sent.size());
            sent.forEach((key, body) -> check(Arrays.equals(body, seen.get(key)), "the body of " + key));
            var groups = admin.listGroups().all().get();
            check(groups.stream().anyMatch(group -> group.groupId().equals("java")), "the group is listed");
            var described = admin.describeConsumerGroups(List.of("java")).all().get().get("java");
            check(described.members().size() == 2, "two members are described");
            var committed = admin.listConsumerGroupOffsets("java").partitionsToOffsetAndMetadata().get();
            long total = committed.values().stream().mapToLong(OffsetAndMetadata::offset).sum();
            check(total == sent.size(), "committed " + total);
            TopicPartition place = new TopicPartition(TOPIC, 0);
            check(first.offsetsForTimes(Map.of(place, 0L)).get(place).offset() == 0, "the offset of a time");
            check(first.endOffsets(List.of(place)).get(place) == committed.get(place).offset(), "the end");
        }
        admin.deleteConsumerGroups(List.of("java")).all().get();
    }

    static void refuseTransactions() {
        Properties settings = settings();
        settings.put("transactional.id", "t");
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            check(false, "there are no transactions");
        } catch (org.apache.kafka.common.errors.TransactionalIdAuthorizationException refused) {
            check(refused.getMessage() != null, "it says why");
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }
}
