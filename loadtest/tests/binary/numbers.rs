//! Numbers as people write them, and options that a load has no use for.

use ringgate_core::transport::Transport;

use crate::support::{Folder, Gateway, ON_A_BUSY_MACHINE, assert_clean, count, loadtest};

/// What is said of arguments that cannot be run.
fn refused(arguments: &[&str]) -> String {
    let output = loadtest(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    // Lines are broken where there is room for them.
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

const LINK: [&str; 3] = ["--url", "tcp://127.0.0.1:1", "--dev"];

#[test]
fn option_has_a_suffix_then_it_is_multiplied() {
    let gateway = Gateway::start();
    let arguments = ["--connections", "0.02k", "--rate", "0.05k/s", "--duration", "1s", "--payload-bytes", "0.1k"];
    let (code, result) = gateway.drive("p2p", &arguments);
    assert_clean(code, &result);
    let load = &result["load"];
    assert_eq!(
        (count(load, "connections"), count(load, "payload_bytes"), load["rate"].as_f64()),
        (20, 100, Some(50.0))
    );
    assert_eq!(count(&result, "published"), 50);
    let arguments = ["--connections", "0.01k", "--ramp-rate", "0.1k/s", "--ramp-burst", "0.005k"];
    let (code, result) = gateway.drive("connect", &arguments);
    assert_clean(code, &result);
    assert_eq!(result["load"]["ramp_rate"].as_f64(), Some(100.0));
}

#[test]
fn number_of_a_mixture_has_a_suffix_then_it_is_multiplied() {
    let gateway = Gateway::start();
    let folder = Folder::new("suffixes");
    let file = folder.path("mixed.toml");
    let mixture = "[[populations]]\nname='a'\nconnections='0.01k'\n[[streams]]\npopulation='a'\nkind='pairs'\nrate='0.02k/s'\n\
                   payload_bytes='0.05k'\n[[phases]]\nname='p'\nduration='1s'\n";
    std::fs::write(&file, mixture).unwrap();
    let url = gateway.url(Transport::Plain);
    let output = loadtest(
        &[&["mixed", &file, "--url", &url, "--dev", "--json", "-", "--quiet"][..], &ON_A_BUSY_MACHINE].concat(),
    );
    let result = serde_json::from_slice(&output.stdout).unwrap();
    assert_clean(output.status.code().unwrap(), &result);
    assert_eq!((count(&result, "connections"), count(&result, "published")), (10, 20));

    std::fs::write(&file, mixture.replace("0.02k/s", "fast")).unwrap();
    let said = refused(&["mixed", &file, "--url", &url, "--dev"]);
    assert!(said.contains("\"fast\" must be a number per second above 0") && said.contains("line 7"), "{said}");
}

#[test]
fn load_is_missing_or_not_first_then_the_right_command_line_is_shown() {
    for (arguments, wanted) in [
        (&["--url", "tcp://h:7400", "--dev"][..], "ringgate-loadtest p2p --url tcp://h:7400 --dev"),
        (&["--url", "tcp://h:7400", "room", "--rate", "5"], "ringgate-loadtest room --url tcp://h:7400 --rate 5"),
        (&["--url=tcp://h:7400", "--dev"], "ringgate-loadtest p2p --url=tcp://h:7400 --dev"),
        (&["tcp://h:7400"], "ringgate-loadtest p2p --url tcp://h:7400"),
        (&["tls://h:7443", "idle", "--ca", "a b.pem"], "ringgate-loadtest idle --url tls://h:7443 --ca 'a b.pem'"),
        (&["--url", "tcp://h:7400", "--fail-if", "p99>20ms"], "p2p --url tcp://h:7400 --fail-if 'p99>20ms'"),
        (&["--token", "eyJ.e30.x", "idle"], "ringgate-loadtest idle --token [redacted]"),
    ] {
        let said = refused(arguments);
        assert!(said.contains("the load comes first, and its options after it") && said.contains(wanted), "{said}");
        assert!(said.contains("connect, idle, ping, p2p, room, ") && !said.contains("eyJ"), "{said}");
    }
    // What is wrong otherwise is said by the parser.
    let said = refused(&["--nothing", "p2p"]);
    assert!(said.contains("unexpected argument '--nothing'") && !said.contains("comes first"), "{said}");
    assert!(refused(&["p3p"]).contains("a similar subcommand exists: 'p2p'"));
}

#[test]
fn clients_have_no_partner_or_no_room_then_it_is_said_before_the_run_and_in_the_report() {
    let gateway = Gateway::start();
    let folder = Folder::new("left-over");
    let (url, json, file) = (gateway.url(Transport::Plain), folder.path("result.json"), folder.path("mixed.toml"));
    let mixture = "[[populations]]\nname='a'\nconnections=5\n[[streams]]\npopulation='a'\nkind='pairs'\nrate=20\n\
                   [[phases]]\nname='p'\nduration='1s'\n";
    std::fs::write(&file, mixture).unwrap();
    let short = ["--rate", "20", "--duration", "1s"];
    let pairs = "5 clients make 2 pairs: one client has no partner, and neither sends nor receives messages";
    let cases: [(&[&str], &[&str], String); 4] = [
        (&["p2p", "--connections", "5"], &short, pairs.to_owned()),
        (&["offline", "--connections", "5"], &short, pairs.to_owned()),
        (
            &["room", "--connections", "8", "--rooms", "3", "--publishers", "1"],
            &short,
            "8 clients make 3 rooms of 2: 2 clients are in no room, without messages; 6 or 9 clients fill all rooms"
                .into(),
        ),
        (&["mixed", &file], &[], format!("a: {pairs}")),
    ];
    for (load, more, wanted) in cases {
        let link = ["--url", &url, "--dev", "--plain", "--json", &json];
        let output = loadtest(&[load, &link, more].concat());
        let (table, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{table} {said}");
        assert!(said.starts_with(&format!("note: {wanted}\n")), "{said}");
        assert!(table.contains(&format!("  note: {wanted}\n")), "{table}");
        let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!(result["notes"], serde_json::json!([wanted]));
    }
    let (code, result) = gateway.drive("p2p", &[&["--connections", "4"], &short[..]].concat());
    assert_eq!((code, &result["notes"]), (0, &serde_json::json!([])));
}

#[test]
fn file_of_mixed_is_wrong_then_its_line_and_the_example_are_named() {
    let folder = Folder::new("wrong-mixture");
    let file = folder.path("mixed.toml");
    let example = "`ringgate-loadtest mixed-example` prints a file with every key explained";
    for (text, wanted) in [
        ("[[populations]]\nname = 'a'\nconnections = \n", "line 3"),
        ("[[populations]]\nname='a'\nconections=5\n", "line 3 (`conections=5`): unknown field `conections`"),
        (
            "[[populations]]\nname='a'\nconnections='many'\n",
            "line 3 (`connections='many'`): \"many\" must be a whole number",
        ),
        ("", "missing field `populations`"),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = refused(&["mixed", &file, "--url", "tcp://127.0.0.1:1", "--dev"]);
        assert!(said.starts_with(&format!("ringgate-loadtest: {file}: ")), "{said}");
        assert!(said.contains(wanted) && said.contains(example), "{said}");
    }
    let said = refused(&["mixed", &folder.path("nothing"), "--url", "tcp://127.0.0.1:1", "--dev"]);
    assert!(said.contains("No such file") && said.contains(example), "{said}");
}

#[test]
fn number_is_wrong_then_the_error_says_what_would_be_right() {
    let count = "must be a whole number from 1 to 2000000, such as 500, 10k or 1.5m";
    let rate = "must be a number per second above 0, such as 500, 2.5, 10k or 5k/s";
    for (option, value, wanted) in [
        ("--connections", "many", count),
        ("--connections", "3m", count),
        ("--connections", "-5", count),
        ("--connections", "1.5", count),
        ("--connections", "10/s", "it is a count, not a rate: leave the /s away"),
        ("--rate", "-5", rate),
        ("--rate", "fast", rate),
        ("--rate", "5k/m", rate),
        ("--ramp-rate", "0", rate),
        ("--poisson", "abc", "a whole number from 0 on, such as 7, or nothing; how many are sent per second is --rate"),
        ("--poisson", "-1", "a whole number from 0 on"),
        ("--payload-bytes", "8", "must be a whole number from 32 to 16777216"),
        ("--closed-loop", "x", "must be a whole number from 1 to 1000"),
        ("--connect-timeout", "0s", "must be above 0"),
        ("--connect-timeout", "10", "write for instance \"500ms\""),
        ("--pid", "me", "must be a whole number from 1"),
    ] {
        let said = refused(&[&["p2p"], &LINK[..], &[option, value]].concat());
        assert!(said.contains(wanted) && said.contains(option), "{option} {value}: {said}");
        assert!(!said.contains("invalid digit"), "{option} {value}: {said}");
    }
    let said = refused(&["slow", "--url", "tcp://127.0.0.1:1", "--dev", "--slow-share", "100"]);
    assert!(said.contains("must be a whole number from 1 to 99"), "{said}");
    let said = refused(&["controller", "--workers", "two", "p2p", "--url", "tcp://127.0.0.1:1"]);
    assert!(said.contains("must be a whole number from 1 to 256"), "{said}");
    let said = refused(&["demo", "--connections", "1"]);
    assert!(said.contains("must be a whole number from 4 to 60000"), "{said}");
}

#[test]
fn address_is_wrong_then_the_error_says_what_would_be_right() {
    for (url, wanted) in [
        ("tcp://h:99999", "has no port from 1 to 65535"),
        ("tcp://h", "has no port"),
        ("ws://h:7400", "is WebSocket, which is not supported yet"),
        ("wss://h:7400/path", "is WebSocket, which is not supported yet"),
        ("https://h", "is a web server's address"),
        ("h:7400", "is not a gateway's address"),
    ] {
        let said = refused(&["p2p", "--dev", "--url", url]);
        assert!(said.contains(wanted) && said.contains("write tcp://HOST:PORT or tls://HOST:PORT"), "{url}: {said}");
    }
}

#[test]
fn load_does_not_use_an_option_then_the_loads_that_use_it_are_named() {
    for (scenario, option, value, wanted) in [
        (
            "ping",
            "--payload-bytes",
            "200",
            "ping has no --payload-bytes: it sends no messages; p2p, room, offline and slow have it",
        ),
        ("p2p", "--publishers", "4", "p2p has no --publishers: it has no rooms; room and slow have it"),
        ("p2p", "--rooms", "1", "p2p has no --rooms: it has no rooms; room and slow have it"),
        ("churn", "--room-name", "chat:x", "churn has no --room-name: it has no rooms; room and slow have it"),
        ("room", "--slow-share", "10", "room has no --slow-share: all its clients read; slow has it"),
        ("storm", "--warm-up", "0s", "storm has no --warm-up; ping, p2p and room have it"),
        ("offline", "--warm-up", "1s", "offline has no --warm-up; ping, p2p and room have it"),
        ("connect", "--duration", "10s", "connect has no --duration: it ends when all clients are connected; idle, "),
        ("idle", "--rate", "1000", "idle has no --rate; how fast clients connect is --ramp-rate; ping, p2p, "),
        ("offline", "--closed-loop", "1", "offline has no --closed-loop; ping, p2p, room and slow have it"),
    ] {
        // Also where its value is the default.
        let said = refused(&[&[scenario], &LINK[..], &[option, value]].concat());
        assert!(said.contains(wanted), "{scenario} {option}: {said}");
    }
    let said = refused(&[&["p2p"], &LINK[..], &["--no-resumption"]].concat());
    assert!(said.contains("--no-resumption is for tls://"), "{said}");
    for option in
        ["--rooms", "--publishers", "--room-name", "--payload-bytes", "--poisson", "--closed-loop", "--warm-up"]
    {
        let said = refused(&[&["mixed", "/nowhere"], &LINK[..], &[option, "5"]].concat());
        assert!(said.contains(option) && said.contains("mixed has it in its FILE"), "{said}");
    }
}
