"""What tools ask in passing of a broker that has none of it: groups, ACLs, quotas, SCRAM, reassignments, transactions."""
from engine import scenario


@scenario("ListGroups")
def groups(t):
    t.ask("all")
    if t.version >= 4:
        t.ask("by state", StatesFilter=["Stable"])
        t.ask("by unknown state", StatesFilter=["Nowhere"])
    if t.version >= 5:
        t.ask("by type", TypesFilter=["consumer"])
        t.ask("by unknown type", TypesFilter=["nothing"])


@scenario("DescribeGroups")
def unknown_groups(t):
    t.ask("one", Groups=["no-such-group"])
    t.ask("two", Groups=["no-such-group", ""])
    t.ask("none", Groups=[])
    if t.version >= 3:
        t.ask("operations", Groups=["no-such-group"], IncludeAuthorizedOperations=True)


@scenario("DeleteGroups")
def deleting_unknown_groups(t):
    t.ask("one", GroupsNames=["no-such-group"])
    t.ask("none", GroupsNames=[])


@scenario("DescribeClientQuotas")
def quotas(t):
    t.ask("all", Components=[], Strict=False)
    t.ask("of a user", Components=[{"EntityType": "user", "MatchType": 0, "Match": "x"}], Strict=True)
    t.ask("of the default", Components=[{"EntityType": "client-id", "MatchType": 1, "Match": None}], Strict=False)
    t.ask("of any", Components=[{"EntityType": "ip", "MatchType": 2, "Match": None}], Strict=False)
    t.ask("unknown entity", Components=[{"EntityType": "planet", "MatchType": 2, "Match": None}], Strict=False)
    t.ask("empty entity", Components=[{"EntityType": "", "MatchType": 2, "Match": None}], Strict=False)
    t.ask("unknown match", Components=[{"EntityType": "user", "MatchType": 9, "Match": None}], Strict=False)
    t.ask("entity twice", Components=[{"EntityType": "user", "MatchType": 2, "Match": None}] * 2, Strict=False)
    t.ask("exact without name", Components=[{"EntityType": "user", "MatchType": 0, "Match": None}], Strict=False)
    t.ask("any with name", Components=[{"EntityType": "user", "MatchType": 2, "Match": "x"}], Strict=False)
    t.ask("ip and user", Components=[{"EntityType": "ip", "MatchType": 2, "Match": None}, {"EntityType": "user", "MatchType": 2, "Match": None}])


ANY = {"ResourceTypeFilter": 1, "PatternTypeFilter": 1, "Operation": 1, "PermissionType": 1}


@scenario("DescribeAcls")
def acls(t):
    t.ask("any", **ANY, ResourceNameFilter=None, PrincipalFilter=None, HostFilter=None)
    t.ask("one", ResourceTypeFilter=2, ResourceNameFilter="x", PatternTypeFilter=3, PrincipalFilter="User:a", HostFilter="*", Operation=3, PermissionType=3)
    for field in ANY:
        t.ask(f"{field} 0", **{**ANY, field: 0})
        t.ask(f"{field} 99", **{**ANY, field: 99})


@scenario("CreateAcls")
def creating_acls(t):
    acl = {"ResourceType": 2, "ResourceName": "x", "ResourcePatternType": 3, "Principal": "User:a", "Host": "*", "Operation": 3, "PermissionType": 3}
    t.ask("one", Creations=[acl])
    t.ask("none", Creations=[])


@scenario("DeleteAcls")
def deleting_acls(t):
    t.ask("any", Filters=[ANY])
    t.ask("none", Filters=[])


@scenario("DescribeUserScramCredentials")
def scram(t):
    t.ask("all", Users=None)
    t.ask("none", Users=[])
    t.ask("one", Users=[{"Name": "x"}])
    t.ask("twice", Users=[{"Name": "x"}, {"Name": "x"}])
    t.ask("empty", Users=[{"Name": ""}])


@scenario("ListPartitionReassignments")
def reassignments(t):
    topic = t.topic()
    t.ask("all", TimeoutMs=10000, Topics=None)
    t.ask("one", TimeoutMs=10000, Topics=[{"Name": topic.name, "PartitionIndexes": [0]}])
    t.ask("unknown partition", TimeoutMs=10000, Topics=[{"Name": topic.name, "PartitionIndexes": [9]}])
    t.ask("unknown topic", TimeoutMs=10000, Topics=[{"Name": "no-such-topic", "PartitionIndexes": [0]}])
    t.ask("none", TimeoutMs=10000, Topics=[])


@scenario("ListTransactions")
def transactions(t):
    t.ask("by an id that is not there", ProducerIdFilters=[123456789])
    t.ask("by unknown state", StateFilters=["Nowhere"], ProducerIdFilters=[123456789])
    t.ask("by state", StateFilters=["Ongoing"], ProducerIdFilters=[123456789])
    if t.version >= 1:
        t.ask("by age", ProducerIdFilters=[123456789], DurationFilter=1000)
    if t.version >= 2:
        t.ask("by pattern", ProducerIdFilters=[123456789], TransactionalIdPattern="a.*")
        t.ask("by bad pattern", ProducerIdFilters=[123456789], TransactionalIdPattern="(")


@scenario("DescribeTransactions")
def unknown_transactions(t):
    t.ask("one", TransactionalIds=["no-such-id"])
    t.ask("empty", TransactionalIds=[""])
    t.ask("none", TransactionalIds=[])


@scenario("DescribeQuorum")
def quorum(t):
    """Who leads and votes; how far each has come moves."""

    def ask(label, topic, *partitions):
        answer = t.connection.request(t.api, t.version, Topics=[
            {"TopicName": topic, "Partitions": [{"PartitionIndex": index} for index in partitions]}] if topic is not None else [])
        for each in answer["Topics"]:
            for partition in each["Partitions"]:
                for name in ("HighWatermark", "LeaderEpoch"):
                    partition[name] = "some" if partition[name] > 0 else partition[name]
                for voter in partition["CurrentVoters"] + partition["Observers"]:
                    voter["LogEndOffset"] = "some" if voter["LogEndOffset"] > 0 else voter["LogEndOffset"]
        for node in answer.get("Nodes") or []:
            for listener in node["Listeners"]:
                listener["Name"] = "Name"
        t.note(label, answer)

    ask("metadata", "__cluster_metadata", 0)
    ask("another partition", "__cluster_metadata", 1)
    ask("another topic", "no-such-topic", 0)
    ask("nothing", None)


@scenario("SaslHandshake")
def handshake(t):
    t.ask("plain", Mechanism="PLAIN")


@scenario("SaslAuthenticate")
def authenticate(t):
    t.ask("without handshake", AuthBytes=b"\0a\0b")


@scenario("ElectLeaders")
def elections(t):
    topic = t.topic()
    ask = lambda label, kind, *partitions: t.ask(label, ElectionType=kind, TimeoutMs=10000, TopicPartitions=[
        {"Topic": topic.name, "Partitions": list(partitions)}])
    ask("preferred", 0, 0)
    ask("unclean", 1, 0)
    ask("unknown partition", 0, 7)
    t.ask("unknown topic", ElectionType=0, TimeoutMs=10000, TopicPartitions=[{"Topic": "no-such-topic", "Partitions": [0]}])
    t.ask("nothing", ElectionType=0, TimeoutMs=10000, TopicPartitions=[])
