//! Command lines for every command that takes keys.
//!
//! In a template a capital letter in angle brackets stands for a word: `<S>` a key of a string, `<L>` of a list, `<H>` of a hash,
//! `<E>` of a set, `<Z>` of a sorted set, `<X>` of a stream, `<G>` of places, `<P>` of a HyperLogLog, `<K>` any of them; `<V>`
//! a value, `<F>` a field or member, `<N>` a small number. No answer depends on chance or on the time.

use crate::server::Dice;

pub(crate) const TEMPLATES: &[&str] = &[
    // Strings.
    "set <S> <V>",
    "set <S> <V> get",
    "set <S> <V> nx",
    "set <S> <V> xx get exat 99999999999",
    "set <S> <V> keepttl",
    "setex <S> 99999 <V>",
    "psetex <S> 99999999 <V>",
    "setnx <S> <V>",
    "get <S>",
    "getdel <S>",
    "getex <S> persist",
    "getset <S> <V>",
    "getrange <S> 0 <N>",
    "substr <S> 0 <N>",
    "setrange <S> <N> <V>",
    "strlen <S>",
    "append <S> <V>",
    "mget <K> <S> <S>",
    "mset <S> <V> <S> <V>",
    "msetnx <S> <V> <S> <V>",
    "incr <S>",
    "incrby <S> <N>",
    "incrbyfloat <S> 1.5",
    "decr <S>",
    "decrby <S> <N>",
    "lcs <S> <S> len",
    "setbit <S> <N> 1",
    "getbit <S> <N>",
    "bitcount <S> 0 -1",
    "bitpos <S> 1",
    "bitfield <S> get u8 0 incrby u8 8 1",
    "bitfield_ro <S> get u8 0",
    "bitop or <S> <S> <S>",
    "bitop not <S> <S>",
    // Keys of any type.
    "del <K> <K>",
    "unlink <K>",
    "exists <K> <K> <K>",
    "touch <K> <K>",
    "type <K>",
    "dump <S>",
    "dump <L>",
    "dump <Z>",
    "expire <K> 99999",
    "expireat <K> 99999999999",
    "pexpire <K> 999999999",
    "pexpireat <K> 99999999999999",
    "expireat k9 99999999999",
    "set k9 <V>",
    "expiretime k9",
    "pexpiretime k9",
    "persist <K>",
    "ttl nosuchkey",
    "pttl nosuchkey",
    "rename <K> <K>",
    "renamenx <K> <K>",
    "copy <K> <K> replace",
    "copy <K> <K>",
    "restore <K> 0 <V>",
    "move <K> 99",
    "object encoding <K>",
    "object refcount <K>",
    "object help",
    "object freq <K>",
    "memory usage nosuchkey samples 0",
    "watch <K> <K>",
    "unwatch",
    "keys *",
    "keys <K>*",
    "keys k[12]",
    "scan 0 count 1000",
    "scan 0 match * count 1000",
    "scan 0 count 1000 match <S>",
    "scan 0 count 1000 type list",
    "scan 0 match",
    "scan 0 match a match k* count 1000",
    "dbsize",
    "sort_ro <L> alpha",
    "sort <L> alpha",
    "sort <E> limit 0 2 alpha desc",
    "sort <L> alpha store <L>",
    "sort <L> limit 0 <N> store <L> alpha",
    "sort <L> store",
    "sort <K>",
    // Lists.
    "lpush <L> <V> <V>",
    "rpush <L> <V>",
    "lpushx <L> <V>",
    "rpushx <L> <V>",
    "lrange <L> 0 -1",
    "llen <L>",
    "lindex <L> <N>",
    "linsert <L> before <V> <V>",
    "lset <L> <N> <V>",
    "lrem <L> 0 <V>",
    "ltrim <L> 0 5",
    "lpos <L> <V> count 0",
    "lpop <L>",
    "rpop <L> 2",
    "lmove <L> <L> left right",
    "rpoplpush <L> <L>",
    "blmove <L> <L> left right 0.01",
    "brpoplpush <L> <L> 0.01",
    "blpop <L> <L> 0.01",
    "brpop <L> <L> 0.01",
    "lmpop 2 <L> <L> left count 2",
    "blmpop 0.01 2 <L> <L> right",
    "lmpop 1 <L> left",
    // Hashes.
    "hset <H> <F> <V> <F> <V>",
    "hmset <H> <F> <V>",
    "hsetnx <H> <F> <V>",
    "hget <H> <F>",
    "hmget <H> <F> <F>",
    "hgetall <H>",
    "hkeys <H>",
    "hvals <H>",
    "hlen <H>",
    "hstrlen <H> <F>",
    "hexists <H> <F>",
    "hdel <H> <F>",
    "hincrby <H> <N> 2",
    "hincrbyfloat <H> <N> 2.5",
    "hscan <H> 0 match * count 100",
    "hrandfield nosuchkey 3",
    // Sets.
    "sadd <E> <F> <F> <F>",
    "srem <E> <F>",
    "smembers <E>",
    "sismember <E> <F>",
    "smismember <E> <F> <F>",
    "scard <E>",
    "smove <E> <E> <F>",
    "spop <E> 1000",
    "srandmember nosuchkey 2",
    "sunion <E> <E>",
    "sinter <E> <E>",
    "sdiff <E> <E>",
    "sunionstore <E> <E> <E>",
    "sinterstore <E> <E> <E>",
    "sdiffstore <E> <E> <E>",
    "sintercard 2 <E> <E> limit 3",
    "sscan <E> 0 match *",
    // Sorted sets.
    "zadd <Z> <N> <F> <N> <F>",
    "zadd <Z> gt ch <N> <F>",
    "zincrby <Z> <N> <F>",
    "zrem <Z> <F>",
    "zcard <Z>",
    "zscore <Z> <F>",
    "zmscore <Z> <F> <F>",
    "zcount <Z> -inf +inf",
    "zlexcount <Z> - +",
    "zrank <Z> <F>",
    "zrevrank <Z> <F>",
    "zrange <Z> 0 -1 withscores",
    "zrangestore <Z> <Z> 0 2",
    "zrangebyscore <Z> -inf +inf limit 0 2",
    "zrangebylex <Z> - +",
    "zrevrange <Z> 0 -1",
    "zrevrangebyscore <Z> +inf -inf",
    "zrevrangebylex <Z> + -",
    "zpopmin <Z>",
    "zpopmax <Z> 2",
    "bzpopmin <Z> <Z> 0.01",
    "bzpopmax <Z> <Z> 0.01",
    "zmpop 2 <Z> <Z> min count 2",
    "bzmpop 0.01 2 <Z> <Z> max",
    "zremrangebyrank <Z> 5 -1",
    "zremrangebyscore <Z> 8 9",
    "zremrangebylex <Z> [y [z",
    "zunion 2 <Z> <E> weights 1 2",
    "zinter 2 <Z> <Z> withscores",
    "zdiff 2 <Z> <Z>",
    "zunionstore <Z> 2 <Z> <Z> aggregate max",
    "zinterstore <Z> 1 <Z>",
    "zdiffstore <Z> 2 <Z> <Z>",
    "zintercard 2 <Z> <Z> limit 2",
    "zscan <Z> 0",
    "zrandmember nosuchkey 3 withscores",
    // Places.
    "geoadd <G> 13.36 38.11 <F> 15.08 37.50 <F>",
    "geopos <G> <F>",
    "geodist <G> <F> <F> km",
    "geohash <G> <F>",
    "georadius <G> 15 37 200 km asc",
    "georadius <G> 15 37 200 km count 2 any asc store <G>",
    "georadius <G> 15 37 900 km storedist <G>",
    "georadius_ro <G> 15 37 200 km withdist asc",
    "georadiusbymember <G> <F> 900 km asc store <G>",
    "georadiusbymember_ro <G> <F> 900 km asc",
    "geosearch <G> fromlonlat 15 37 byradius 900 km asc",
    "geosearchstore <G> <G> fromlonlat 15 37 bybox 900 900 km asc",
    // HyperLogLogs.
    "pfadd <P> <F> <F>",
    "pfcount <P> <P>",
    "pfmerge <P> <P> <P>",
    // Streams.
    "xadd <X> 1-* <F> <V>",
    "xadd <X> maxlen 5 2-* <F> <V>",
    "xlen <X>",
    "xrange <X> - +",
    "xrevrange <X> + - count 2",
    "xread streams <X> <X> 0 0",
    "xread count 2 block 1 streams <X> <X> 0-1 $",
    "xread streams <X>",
    "xgroup create <X> g 0 mkstream",
    "xgroup create <X> g $",
    "xgroup createconsumer <X> g <F>",
    "xgroup delconsumer <X> g <F>",
    "xgroup setid <X> g 0",
    "xgroup destroy <X> g",
    "xgroup help",
    "xreadgroup group g c streams <X> <X> > >",
    "xreadgroup group streams c count 1 streams <X> >",
    "xreadgroup group g c noack streams <X> 0",
    "xack <X> g 1-1",
    "xclaim <X> g c 99999 1-1 justid",
    "xautoclaim <X> g c 99999 0",
    "xpending <X> g",
    "xdel <X> 1-1",
    "xtrim <X> maxlen 3",
    "xsetid <X> 9-9",
    "xinfo stream <X>",
    "xinfo groups <X>",
    "xinfo help",
    // Scripts.
    "eval return{redis.call('get',KEYS[1]),ARGV[1]} 1 <S> <S>",
    "eval return{1,2.5,'a',{false}} 0 <S>",
    "eval_ro return#KEYS 2 <S> <S>",
    "evalsha 0000000000000000000000000000000000000000 1 <S>",
    "evalsha_ro 0000000000000000000000000000000000000000 1 <S>",
    "eval return 9 <S>",
    "eval return -1",
    "fcall echo 1 <S> <V>",
    "fcall_ro echo 2 <S> <S>",
    "fcall nothing 1 <S>",
    // Channels, without subscribing.
    "publish <K> <V>",
    "spublish <K> <V>",
    "pubsub channels",
    "pubsub channels *",
    "pubsub numsub <K> <K>",
    "pubsub shardchannels",
    "pubsub shardnumsub <K>",
    "pubsub nothing",
    // Of servers after 7.0; others have not heard of them.
    "hexpire <H> 99999 fields 1 <F>",
    "hpersist <H> fields 1 <F>",
    "httl nosuchkey fields 1 <F>",
    "hgetdel <H> fields 1 <F>",
    "hgetex <H> persist fields 2 <F> <F>",
    "hsetex <H> fields 1 <F> <V>",
    "xdelex <X> keepref ids 1 1-1",
    "xackdel <X> g ids 1 1-1",
    "msetex 2 <S> <V> <S> <V> nx",
    "delex <S>",
    "digest <S>",
    // Neither.
    "ping",
    "echo <K>",
    "command getkeys get <K>",
    "command getkeysandflags set <K> <V>",
    "get",
    "set <S>",
    "object",
    "xgroup nothing <X>",
    "client tracking off",
    "client trackinginfo",
    "wait 0 0",
    "script exists <K>",
];

/// Commands with keys that have no template, and why.
pub(crate) const LEFT_OUT: &[&str] = &[
    "migrate",        // Sends keys to another server.
    "restore-asking", // Of clusters: as RESTORE.
    "pfdebug",        // Of Redis's own tests.
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",    // In `pubsub.rs`.
    "object|idletime", // Says how long ago the other line was run.
    "xinfo|consumers", // As well.
];

/// Lines of whose keys the server has a wrong idea, all of which it refuses in the end: of users with few keys because of that idea, of
/// others because of what is wrong with the line.
pub(crate) const FOOLING: &[&str] = &[
    "xread count streams streams <X> 0",
    "georadius <G> 15 37 200 km count store <G> store <G>",
];

/// Templates with `BY` and `GET`, which a server refuses to users that are limited to some keys.
pub(crate) const SORTS: &[&str] = &[
    "sort <L> by nosort get #",
    "sort <L> by k* get # get k* get <S> alpha",
    "sort <E> alpha by k*->a get k*->b",
    "sort_ro <L> by k* get k* limit 0 5 alpha",
    "sort <L> by k* get # store <L> alpha",
    "sort <L> get by by get get k* store <L>",
];

const VALUES: &[&str] = &[
    "1", "2", "10", "0", "", "t:1", "t:s1", "a b", "x\r\ny", "\u{fc}", "get", "store", "streams",
];
const FIELDS: &[&str] = &["a", "b", "c", "t:s1", "", "1", "2"];

/// A line by a template.
pub(crate) fn line(template: &str, dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    for word in template.split(' ') {
        let mut text = String::new();
        let mut rest = word;
        while let Some((before, after)) = rest.split_once('<') {
            let (name, after) = after.split_once('>').expect("the end of a name");
            text.push_str(before);
            text.push_str(&fill(name, dice));
            rest = after;
        }
        text.push_str(rest);
        words.push(text.into_bytes());
    }
    words
}

fn fill(name: &str, dice: &mut Dice) -> String {
    let any = ["S", "L", "H", "E", "Z", "X", "G", "P"];
    match name {
        "K" => {
            let name = dice.pick(&any);
            fill(name, dice)
        }
        "V" => (dice.pick(VALUES)).to_owned(),
        "F" => (dice.pick(FIELDS)).to_owned(),
        "N" => dice.below(10).to_string(),
        // Keys with every oddity: empty, like the prefix, like an option, not of its type.
        name => match dice.below(12) {
            0 => format!("t:{}", name.to_lowercase()),
            1 => "store".into(),
            2 if name == "S" => String::new(),
            3 => format!("k{}", dice.below(4)),
            _ => format!("{}{}", name.to_lowercase(), dice.below(3)),
        },
    }
}
