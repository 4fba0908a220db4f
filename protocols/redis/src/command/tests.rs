use super::*;
use crate::reply::write;
use proptest::prelude::*;

/// What Redis 7.0.15 answers to `COMMAND` in RESP3.
const REPLY: &[u8] = include_bytes!("../../testdata/command-7.0.resp3");

fn table() -> Table {
    Table::from_reply(REPLY).expect("a table")
}

/// The arguments that are not [`Role::Other`], as index and role.
fn roles(line: &str) -> Vec<(usize, Role)> {
    let args: Vec<&str> = line.split(' ').collect();
    let table = table();
    let spec = table
        .find(args[0].as_bytes(), args.get(1).map(|arg| arg.as_bytes()))
        .unwrap_or_else(|| panic!("{line}"));
    let mut walker = spec.walk(args.len());
    args.iter()
        .map(|arg| walker.next(Some(arg.as_bytes())))
        .enumerate()
        .filter(|(_, role)| *role != Role::Other)
        .collect()
}

fn keys(line: &str) -> Vec<usize> {
    roles(line)
        .into_iter()
        .map(|(index, role)| {
            assert!(matches!(role, Role::Key(_)), "{line}: {index}: {role:?}");
            index
        })
        .collect()
}

#[test]
fn all_commands_are_found_in_any_case() {
    let table = table();
    assert_eq!(
        table
            .specs()
            .iter()
            .filter(|it| it.container.is_none())
            .count(),
        240
    );
    for spec in table.specs() {
        let name = String::from_utf8(spec.name().to_vec()).unwrap();
        let (command, subcommand) = match name.split_once('|') {
            Some((command, subcommand)) => (command, Some(subcommand)),
            None => (&*name, None),
        };
        for upper in [false, true] {
            let case = |text: &str| match upper {
                true => text.to_uppercase().into_bytes(),
                false => text.as_bytes().to_vec(),
            };
            let subcommand = subcommand.map(case);
            let found = table.find(&case(command), subcommand.as_deref());
            assert_eq!(found.map(Spec::name), Some(name.as_bytes()));
            assert_eq!(found.map(Spec::place), Some(spec.place()));
        }
    }
    assert!(
        table
            .specs()
            .iter()
            .enumerate()
            .all(|(place, spec)| spec.place() == place)
    );
    assert!(table.find(b"", None).is_none());
    assert!(table.find(b"nothing", Some(b"get")).is_none());
    assert!(table.find(b"help", None).is_none());
    assert!(table.find(&[b'a'; 1000], None).is_none());
    // Not a subcommand, so what follows does not matter.
    assert_eq!(table.find(b"get", Some(b"help")).unwrap().name(), b"get");
    assert_eq!(
        table.find(b"config", Some(b"nothing")).unwrap().name(),
        b"config"
    );
    assert_eq!(table.find(b"config", None).unwrap().name(), b"config");
}

#[test]
fn what_the_server_says_is_kept() {
    let table = table();
    let set = table.find(b"SET", None).unwrap();
    assert_eq!(set.arity(), -3);
    assert!(set.takes(3) && set.takes(7) && !set.takes(2));
    assert!(set.flags().has(Flags::WRITE.with(Flags::DENYOOM)));
    assert!(!set.flags().has_any(Flags::READONLY.with(Flags::BLOCKING)));
    assert!(
        set.categories()
            .has(Categories::STRING.with(Categories::SLOW))
    );
    let get = table.find(b"get", None).unwrap();
    assert!(get.takes(2) && !get.takes(3));
    for spec in table.specs() {
        assert!(spec.keys_known(), "{spec:?}");
    }
}

#[test]
fn keys_are_where_the_server_says() {
    assert_eq!(keys("get k"), [1]);
    assert_eq!(keys("ping x"), []);
    assert_eq!(keys("del a b c"), [1, 2, 3]);
    assert_eq!(keys("mset a 1 b 2"), [1, 3]);
    assert_eq!(keys("blpop a b 0"), [1, 2]);
    assert_eq!(keys("bitop and d a b"), [2, 3, 4]);
    assert_eq!(keys("object encoding k"), [2]);
    assert_eq!(keys("object help"), []);
    assert_eq!(keys("memory usage k samples 0"), [2]);
    assert_eq!(keys("xgroup create s g $"), [2]);
    assert_eq!(keys("eval return 2 a b c"), [3, 4]);
    assert_eq!(keys("eval return 0 a"), []);
    assert_eq!(keys("eval return 99 a"), [3]);
    assert_eq!(keys("eval return -1 a"), []);
    assert_eq!(keys("eval return x a"), []);
    assert_eq!(keys("zunionstore d 2 a b weights 1 2"), [1, 3, 4]);
    assert_eq!(keys("zinter 1 a aggregate min"), [2]);
    assert_eq!(keys("blmpop 0 2 a b left count 3"), [3, 4]);
    assert_eq!(keys("sintercard 2 a b limit 1"), [2, 3]);
    assert_eq!(keys("copy a b db 1"), [1, 2]);
    assert_eq!(keys("watch a b"), [1, 2]);
    assert_eq!(keys("hscan h 0 match x"), [1]);
}

#[test]
fn keys_are_where_the_grammar_says() {
    assert_eq!(keys("xread count 5 block 0 streams a b 0 0"), [6, 7]);
    assert_eq!(keys("xread streams streams 0"), [2]);
    assert_eq!(keys("xread streams a streams"), [2]);
    assert_eq!(keys("xreadgroup group streams c streams a b > >"), [5, 6]);
    assert_eq!(keys("xread streams"), []);
    assert_eq!(keys("georadius g 0 0 1 km store d"), [1, 7]);
    assert_eq!(
        keys("georadius g 0 0 1 km count 1 any storedist d"),
        [1, 10]
    );
    assert_eq!(
        keys("georadiusbymember store store 1 km store store"),
        [1, 6]
    );
    assert_eq!(keys("georadius_ro g 0 0 1 km"), [1]);
    assert_eq!(keys("migrate h 1 k 0 9"), [3]);
    assert_eq!(
        keys("migrate h 1 k 0 9 copy auth keys keys a b"),
        [3, 10, 11]
    );
    assert_eq!(
        keys("migrate h 1  0 9 replace auth2 keys keys keys a b"),
        [11, 12]
    );
    let key = Role::Key(KeyFlags::RO.with(KeyFlags::ACCESS));
    let store = Role::Key(KeyFlags::OW.with(KeyFlags::UPDATE));
    assert_eq!(
        roles("sort get by w_* limit 0 by get # get store get d_* store by desc"),
        [
            (1, key),
            (3, Role::SortBy),
            (8, Role::SortGet),
            (10, Role::SortGet),
            (12, Role::SortGet),
            (14, store)
        ]
    );
}

#[test]
fn channels_and_patterns_have_roles() {
    assert_eq!(roles("publish c m"), [(1, Role::Channel)]);
    assert_eq!(
        roles("subscribe a b"),
        [(1, Role::Channel), (2, Role::Channel)]
    );
    assert_eq!(roles("punsubscribe a"), [(1, Role::ChannelPattern)]);
    assert_eq!(roles("punsubscribe"), []);
    assert_eq!(roles("ssubscribe a"), [(1, Role::ShardChannel)]);
    assert_eq!(roles("spublish a m"), [(1, Role::ShardChannel)]);
    assert_eq!(roles("pubsub channels p"), [(2, Role::ChannelPattern)]);
    assert_eq!(roles("pubsub numsub a"), [(2, Role::Channel)]);
    assert_eq!(roles("pubsub numpat"), []);
    assert_eq!(roles("keys p"), [(1, Role::KeyPattern)]);
    assert_eq!(
        roles("scan 0 count match match a match b"),
        [(5, Role::KeyPattern), (7, Role::KeyPattern)]
    );
    let prefix = Role::TrackingPrefix;
    assert_eq!(
        roles("client tracking on prefix prefix redirect prefix bcast prefix a"),
        [(4, prefix), (9, prefix)]
    );
}

#[test]
fn what_is_withheld_is_no_keyword() {
    let table = table();
    let mut walker = table.find(b"sort", None).unwrap().walk(4);
    walker.next(Some(b"sort"));
    assert!(matches!(walker.next(None), Role::Key(_)));
    assert_eq!(walker.next(None), Role::Other);
    assert_eq!(walker.next(Some(b"d")), Role::Other);
    let mut walker = table.find(b"eval", None).unwrap().walk(5);
    for arg in [Some(&b"eval"[..]), None, Some(b"1")] {
        assert_eq!(walker.next(arg), Role::Other);
    }
    assert!(matches!(walker.next(None), Role::Key(_)));
    assert_eq!(walker.next(None), Role::Other);
}

/// Redis 6.2 and before: first, last, step and no more.
#[test]
fn older_servers_say_less() {
    let mut reply = Vec::new();
    let commands: [(&str, i64, &[&str], [i64; 3]); 9] = [
        ("get", 2, &["readonly", "fast"], [1, 1, 1]),
        ("mset", -3, &["write", "denyoom"], [1, -1, 2]),
        ("eval", -3, &["noscript", "movablekeys"], [0, 0, 0]),
        ("zunionstore", -4, &["write", "movablekeys"], [1, 1, 1]),
        ("object", -2, &["readonly"], [2, 2, 1]),
        ("memory", -2, &["readonly", "movablekeys"], [0, 0, 0]),
        ("pubsub", -2, &["pubsub"], [0, 0, 0]),
        ("xread", -4, &["readonly", "movablekeys"], [1, 1, 1]),
        ("mod.thing", -1, &["movablekeys"], [0, 0, 0]),
    ];
    write::array_header(&mut reply, commands.len() + 1);
    for (index, (name, arity, flags, numbers)) in commands.iter().enumerate() {
        write::array_header(&mut reply, 6 + index % 2);
        write::bulk(&mut reply, name.as_bytes());
        write::integer(&mut reply, *arity);
        write::array_header(&mut reply, flags.len());
        for flag in *flags {
            write::simple(&mut reply, flag.as_bytes());
        }
        for number in numbers {
            write::integer(&mut reply, *number);
        }
        if index % 2 == 1 {
            write::array_header(&mut reply, 1);
            write::simple(&mut reply, b"@slow");
        }
    }
    write::null_array(&mut reply, write::Version::Resp2);
    let table = Table::from_reply(&reply).unwrap();
    let keys = |line: &str| {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let spec = table.find(args[0], Some(args[1])).unwrap();
        let mut walker = spec.walk(args.len());
        let role = |arg: &&[u8]| walker.next(Some(arg)) != Role::Other;
        let found: Vec<_> = args.iter().map(role).collect();
        (0..args.len()).filter(|at| found[*at]).collect::<Vec<_>>()
    };
    assert_eq!(keys("get k"), [1]);
    assert_eq!(keys("mset a 1 b 2"), [1, 3]);
    assert_eq!(keys("eval s 1 a b"), [3]);
    assert_eq!(keys("zunionstore d 1 a"), [1, 3]);
    assert_eq!(keys("object encoding k"), [2]);
    assert_eq!(keys("memory usage k"), [2]);
    assert_eq!(keys("memory doctor k"), []);
    assert_eq!(keys("pubsub numsub c"), [2]);
    assert_eq!(keys("xread streams a 0"), [2]);
    assert_eq!(
        table.find(b"PUBSUB", Some(b"NUMSUB")).unwrap().name(),
        b"pubsub|numsub"
    );
    assert!(!table.find(b"mod.thing", None).unwrap().keys_known());
}

/// A command with a description of its own: `begin` and `find` are a type and a number for each name.
fn described(flags: &str, begin: (&str, &[(&str, i64)]), find: (&str, &[(&str, i64)])) -> Table {
    let mut out = Vec::new();
    write::array_header(&mut out, 1);
    write::array_header(&mut out, 10);
    write::bulk(&mut out, b"x.y");
    write::integer(&mut out, -1);
    write::array_header(&mut out, 0);
    for _ in 0..3 {
        write::integer(&mut out, 0);
    }
    write::array_header(&mut out, 0);
    write::array_header(&mut out, 0);
    write::array_header(&mut out, 1);
    write::map_header(&mut out, write::Version::Resp3, 3);
    write::bulk(&mut out, b"flags");
    write::array_header(&mut out, 1);
    write::simple(&mut out, flags.as_bytes());
    for (name, (kind, fields)) in [("begin_search", begin), ("find_keys", find)] {
        write::bulk(&mut out, name.as_bytes());
        write::map_header(&mut out, write::Version::Resp3, 2);
        write::bulk(&mut out, b"type");
        write::bulk(&mut out, kind.as_bytes());
        write::bulk(&mut out, b"spec");
        write::map_header(&mut out, write::Version::Resp3, fields.len());
        for (name, value) in fields {
            write::bulk(&mut out, name.as_bytes());
            match *name {
                "keyword" => write::bulk(&mut out, b"KEYS"),
                _ => write::integer(&mut out, *value),
            }
        }
    }
    write::array_header(&mut out, 0);
    Table::from_reply(&out).unwrap()
}

#[test]
fn descriptions_of_every_kind() {
    let range: &[_] = &[("lastkey", -1), ("keystep", 2), ("limit", 0)];
    let keynum: &[_] = &[("keynumidx", 0), ("firstkey", 1), ("keystep", 2)];
    let keyword: &[_] = &[("keyword", 0), ("startfrom", 2)];
    let keys = |table: &Table, line: &str| {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let spec = table.find(args[0], None).unwrap();
        assert!(spec.keys_known());
        let mut walker = spec.walk(args.len());
        let role = |arg: &&[u8]| walker.next(Some(arg)) != Role::Other;
        let found: Vec<_> = args.iter().map(role).collect();
        (0..args.len()).filter(|at| found[*at]).collect::<Vec<_>>()
    };
    let table = described("RW", ("keyword", keyword), ("range", range));
    assert_eq!(keys(&table, "x.y keys keys a 1 b 2"), [3, 5]);
    assert_eq!(keys(&table, "x.y keys a"), []);
    assert_eq!(keys(&table, "x.y 1 keys"), []);
    let table = described("RW", ("index", &[("index", 1)]), ("keynum", keynum));
    assert_eq!(keys(&table, "x.y 2 a 1 b 2 c 3"), [2, 4]);
    assert_eq!(keys(&table, "x.y 9223372036854775807 a 1 b 2"), [2, 4]);
    let limit: &[_] = &[("lastkey", -1), ("keystep", 1), ("limit", 2)];
    let table = described("RO", ("index", &[("index", 2)]), ("range", limit));
    assert_eq!(keys(&table, "x.y - a b 1 2"), [2, 3]);

    let backwards: &[_] = &[("keyword", 0), ("startfrom", -2)];
    let before: &[_] = &[("keynumidx", 1), ("firstkey", 0), ("keystep", 1)];
    for table in [
        described("RW", ("keyword", backwards), ("range", range)),
        described("RW", ("unknown", &[]), ("range", range)),
        described("RW", ("index", &[("index", 1)]), ("unknown", &[])),
        described("RW", ("index", &[("index", 1)]), ("keynum", before)),
        described("incomplete", ("index", &[("index", 1)]), ("range", range)),
    ] {
        let spec = table.find(b"X.Y", None).unwrap();
        assert!(!spec.keys_known());
        assert_eq!(spec.walk(2).next(Some(b"x.y")), Role::Other);
    }
}

#[test]
fn what_is_no_table() {
    for (reply, error) in [
        (&b"-NOPERM no\r\n"[..], TableError::Refused),
        (b"+OK\r\n", TableError::Form),
        (b"*1\r\n+get\r\n", TableError::Form),
        (b"*1\r\n*1\r\n+get\r\n", TableError::Form),
        (b"*1\r\n*2\r\n+get\r\n$1\r\nx\r\n", TableError::Form),
        (
            b"*1\r\n",
            TableError::Reply(crate::reply::ReplyError::CutOff),
        ),
    ] {
        assert_eq!(Table::from_reply(reply).err(), Some(error));
    }
    for cut in (0..REPLY.len()).step_by(97) {
        assert!(Table::from_reply(&REPLY[..cut]).is_err());
    }
}

proptest! {
    #[test]
    fn walkers_never_panic(
        name in prop::sample::select(table().specs().to_vec()),
        args in prop::collection::vec(prop::option::of("(streams|store|by|get|limit|keys|[0-9-]{1,3}|[a-z]{0,3})"), 0..12),
        argc in 0..20_usize,
    ) {
        let mut walker = name.walk(argc);
        for arg in &args {
            walker.next(arg.as_ref().map(String::as_bytes));
        }
    }

    #[test]
    fn damaged_tables_are_refused_or_read(at: prop::sample::Index, byte: u8) {
        let mut reply = REPLY.to_vec();
        let at = at.index(reply.len());
        reply[at] = byte;
        if let Ok(table) = Table::from_reply(&reply) {
            let _ = table.find(b"get", None);
        }
    }
}
