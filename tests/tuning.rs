//! The tuning scripts from outside: on a tree of files that looks like a host, and on the real settings of a network
//! namespace of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

const HOST: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal:       24684092 kB\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/net/core/somaxconn", "128\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "8192\n"),
    ("proc/sys/net/ipv4/tcp_mem", "1000\t2000\t3000\n"),
    ("proc/sys/net/ipv4/tcp_migrate_req", "0\n"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("proc/1/comm", "init\n"),
    (
        "proc/interrupts",
        "      CPU0 CPU1\n 37: 0 1 PCI 0 eth0-config\n 38: 0 9 PCI 1 eth0-rx-0\n 39: 7 0 PCI 2 eth0-rx-1\n",
    ),
    ("proc/irq/37/smp_affinity_list", "0-3\n"),
    ("proc/irq/38/smp_affinity_list", "0-3\n"),
    ("proc/irq/39/smp_affinity_list", "0-3\n"),
    ("sys/devices/system/cpu/online", "0,2-3\n"),
    ("sys/class/net/lo/mtu", "65536\n"),
    ("sys/class/net/eth0/device/msi_irqs/37", "msix\n"),
    ("sys/class/net/eth0/device/msi_irqs/38", "msix\n"),
    ("sys/class/net/eth0/device/msi_irqs/39", "msix\n"),
];

/// A tree of files, removed with the test.
struct Root(PathBuf);

impl Root {
    fn new(files: &[(&str, &str)]) -> Root {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = Root(std::env::temp_dir().join(format!("ringgate-tuning-{}-{number}", std::process::id())));
        std::fs::create_dir_all(&root.0).unwrap();
        for (path, text) in files {
            root.set(path, text);
        }
        root
    }

    fn set(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Every folder and every file with its bytes.
    fn all(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                    all.insert(path, None);
                } else {
                    all.insert(path.clone(), Some(std::fs::read(&path).unwrap()));
                }
            }
        }
        all
    }

    fn command(&self, name: &str, options: &[&str]) -> Command {
        let mut command = Command::new(script(name));
        command.arg("--root").arg(&self.0).args(options);
        command
    }

    /// Runs a script on this tree; it must end well.
    fn run(&self, name: &str, options: &[&str]) -> String {
        good(self.command(name, options).output().unwrap())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)
}

fn good(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn plan_runs_then_it_says_what_and_why_and_changes_nothing() {
    let root = Root::new(HOST);
    let before = root.all();
    let plan = root.run("plan", &["--connections", "1000000", "--shards", "4"]);
    assert_eq!(root.all(), before);
    for line in [
        "fs.nr_open: 1048576 -> 2097152 (the limit of open files cannot be raised beyond it)",
        "fs.file-max: 9223372036854775807 is enough",
        "net.core.somaxconn: 128 -> 4096 (connections that wait for accept; the gateway asks for 4096)",
        "net.ipv4.tcp_max_syn_backlog: 8192 is enough",
        "    net.ipv4.tcp_mem = 750000 1000000 2000000",
        "    LimitNOFILE=1135400",
        "    ringgate hard nofile 1135400",
        "interrupt 38 (eth0-rx-0): cores 0-3 -> 0 (queues in turn over the cores)",
        "interrupt 39 (eth0-rx-1): cores 0-3 -> 2 (queues in turn over the cores)",
    ] {
        assert!(plan.lines().any(|found| found == line), "{line}\nis not in\n{plan}");
    }
    assert!(!plan.contains("ip_local_port_range") && !plan.contains("eth0-config"), "{plan}");
}

#[test]
fn apply_runs_twice_and_revert_once_then_every_byte_is_as_before() {
    let root = Root::new(HOST);
    let before = root.all();
    // The second round finds nothing of the first.
    for _ in 0..2 {
        root.run("apply", &["--connections", "1000000", "--load-test"]);
        assert_eq!(root.read("proc/sys/net/core/somaxconn"), "4096\n");
        assert_eq!(root.read("proc/sys/net/ipv4/tcp_mem"), "750000 1000000 2000000\n");
        assert_eq!(root.read("proc/sys/net/ipv4/ip_local_port_range"), "10240 65535\n");
        assert_eq!(root.read("proc/irq/39/smp_affinity_list"), "2\n");
        assert_eq!(root.read("proc/irq/37/smp_affinity_list"), "0-3\n");
        let once = root.all();
        let options = ["--connections", "1000000", "--load-test"];
        let plan = root.run("plan", &options);
        let again = root.run("apply", &options);
        assert_eq!(root.all(), once, "{again}");
        assert_eq!(plan, again);
        assert!(!again.contains(" -> ") && !again.contains("written"), "{again}");
        for key in ["net.core.somaxconn", "net.ipv4.tcp_mem", "net.ipv4.ip_local_port_range"] {
            assert!(again.contains(&format!("{key}: is as it should be\n")), "{again}");
        }
        // For another target it is told what changes now, and not since the first time.
        let other = root.run("plan", &["--connections", "4000000", "--load-test"]);
        assert!(other.contains("fs.nr_open: 2097152 -> 5242880 ("), "{other}");
        // Another target on top: what is put back is still from before the first.
        root.run("apply", &["--connections", "4000000", "--load-test"]);
        assert_ne!(root.all(), once);
        root.run("revert", &[]);
        assert_eq!(root.all(), before);
    }
    assert!(root.run("revert", &[]).starts_with("nothing to revert"));
    assert_eq!(root.all(), before);
}

#[test]
fn settings_were_there_before_then_revert_leaves_them() {
    let root = Root::new(HOST);
    root.set("etc/sysctl.d/90-ringgate.conf", "# by hand, without an end of line");
    root.set("var/lib/ringgate/other", "of somebody else\n");
    let before = root.all();
    root.run("apply", &["--connections", "50000"]);
    assert!(root.read("etc/sysctl.d/90-ringgate.conf").contains("net.core.somaxconn = 4096\n"));
    root.run("revert", &[]);
    assert_eq!(root.all(), before);
    // A file that came meanwhile keeps its folder.
    root.run("apply", &["--connections", "50000"]);
    root.set("etc/security/limits.d/other.conf", "x\n");
    root.run("revert", &[]);
    assert_eq!(root.read("etc/security/limits.d/other.conf"), "x\n");
    assert!(!root.0.join("etc/systemd").exists());
}

#[test]
fn file_is_where_the_link_would_be_then_it_stays() {
    let root = Root::new(HOST);
    let path = "etc/systemd/system/multi-user.target.wants/ringgate-interrupts.service";
    root.set(path, "[Unit]\n# by hand\n");
    let before = root.all();
    let apply = root.run("apply", &["--only", "irq"]);
    assert!(apply.contains(&format!("/{path}: left alone; what is there is no link\n")), "{apply}");
    assert_eq!(root.read(path), "[Unit]\n# by hand\n");
    assert!(root.0.join("etc/systemd/system/ringgate-interrupts.service").exists());
    root.run("revert", &[]);
    assert_eq!(root.all(), before);
}

#[test]
fn one_part_is_named_then_only_that_is_applied() {
    let root = Root::new(HOST);
    let before = root.all();
    for (part, changed, unchanged) in [
        ("sysctl", "etc/sysctl.d/90-ringgate.conf", "etc/security"),
        ("limits", "etc/systemd/system/gate.service.d/90-tuning.conf", "etc/sysctl.d"),
        ("irq", "etc/systemd/system/ringgate-interrupts.service", "etc/sysctl.d"),
    ] {
        root.run("apply", &["--only", part, "--unit", "gate.service"]);
        assert!(root.0.join(changed).exists() && !root.0.join(unchanged).exists(), "{part}");
        root.run("revert", &[]);
        assert_eq!(root.all(), before, "{part}");
    }
}

/// Beside the two queues of the card: a disk with one interrupt that may be moved and one that may not, and a serial line
/// that is out of the way as it is.
fn host_with_other_devices() -> Root {
    let root = Root::new(HOST);
    let interrupts =
        root.read("proc/interrupts") + " 50: 4 0 PCI 3 nvme0q0\n 51: 0 4 PCI 3 nvme0q1\n 52: 1 1 x ttyS0\nNMI: 1 1\n";
    root.set("proc/interrupts", &interrupts);
    root.set("proc/irq/50/smp_affinity_list", "0-3\n");
    root.set("proc/irq/51/smp_affinity_list", "2\n");
    root.set("proc/irq/52/smp_affinity_list", "0\n");
    let managed = root.0.join("proc/irq/51/smp_affinity_list");
    std::fs::set_permissions(managed, PermissionsExt::from_mode(0o444)).unwrap();
    root
}

#[test]
fn cores_are_named_then_queues_go_there_and_other_interrupts_elsewhere() {
    let root = host_with_other_devices();
    let before = root.all();
    let options = ["--only", "irq", "--cores", "2-3"];
    let plan = root.run("plan", &options);
    assert_eq!(root.all(), before);
    for line in [
        "interrupt 38 (eth0-rx-0): cores 0-3 -> 2 (queues in turn over the cores)",
        "interrupt 39 (eth0-rx-1): cores 0-3 -> 3 (queues in turn over the cores)",
        "interrupt 37 (eth0-config): cores 0-3 -> 0 (not on the shards' cores)",
        "interrupt 50 (nvme0q0): cores 0-3 -> 0 (not on the shards' cores)",
        "interrupt 51 (nvme0q1): left alone; the kernel manages it itself",
    ] {
        assert!(plan.lines().any(|found| found == line), "{line}\nis not in\n{plan}");
    }
    assert!(!plan.contains("ttyS0"), "{plan}");
    assert_eq!(root.run("apply", &options), plan);
    for (number, core) in [(37, "0"), (38, "2"), (39, "3"), (50, "0"), (51, "2"), (52, "0")] {
        assert_eq!(root.read(&format!("proc/irq/{number}/smp_affinity_list")), format!("{core}\n"));
    }
    let once = root.all();
    root.run("apply", &options);
    assert_eq!(root.all(), once);
    root.run("revert", &[]);
    assert_eq!(root.all(), before);
    // No core is left for the others.
    let all = root.run("plan", &["--only", "irq", "--cores", "0,2-3"]);
    assert!(all.contains("interrupts of other devices: left alone; no core is left for them\n"), "{all}");
    assert!(!all.contains("nvme"), "{all}");
}

#[test]
fn host_restarts_then_interrupts_are_placed_again_and_put_back_by_name() {
    let root = host_with_other_devices();
    root.run("apply", &["--only", "irq", "--cores", "2-3"]);
    let unit = root.read("etc/systemd/system/ringgate-interrupts.service");
    assert!(unit.contains("\nExecStart=/usr/bin/env bash /usr/local/lib/ringgate/interrupts\n"), "{unit}");
    let link = root.0.join("etc/systemd/system/multi-user.target.wants/ringgate-interrupts.service");
    assert_eq!(std::fs::read_to_string(link).unwrap(), unit);
    // The card's second queue and the disk have changed places, and everything is where the kernel puts it.
    let interrupts = root.read("proc/interrupts").replace("39:", "?").replace("50:", "39:").replace("?", "50:");
    root.set("proc/interrupts", &interrupts);
    for number in [37, 38, 39, 50] {
        root.set(&format!("proc/irq/{number}/smp_affinity_list"), "0-3\n");
    }
    let script =
        root.read("usr/local/lib/ringgate/interrupts").replace("/proc/", &format!("{}/proc/", root.0.display()));
    good(Command::new("bash").args(["-c", &script]).output().unwrap());
    let cores = || [37, 38, 39, 50, 51, 52].map(|number| root.read(&format!("proc/irq/{number}/smp_affinity_list")));
    assert_eq!(cores(), ["0\n", "2\n", "0\n", "3\n", "2\n", "0\n"]);
    // The first queue is gone when everything is put back.
    root.set("proc/interrupts", &interrupts.replace("eth0-rx-0", "eth1-rx-0"));
    let revert = root.run("revert", &[]);
    assert!(revert.contains("interrupt 50 (eth0-rx-1): back to cores 0-3\n"), "{revert}");
    assert!(revert.contains("interrupt eth0-rx-0 #1: is not there any more\n"), "{revert}");
    assert_eq!(cores(), ["0-3\n", "2\n", "0-3\n", "0-3\n", "2\n", "0\n"]);
    assert!(!root.0.join("etc").exists() && !root.0.join("usr").exists() && !root.0.join("var").exists());
}

#[test]
fn interrupts_share_a_name_then_their_order_tells_them_apart() {
    let root = Root::new(HOST);
    let affinity = |number: u32| format!("proc/irq/{number}/smp_affinity_list");
    let set = |number: u32, cores: &str, mode: u32| {
        let path = root.0.join(affinity(number));
        // What nobody may write is made anew.
        let _ = std::fs::remove_file(&path);
        root.set(&affinity(number), cores);
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let ports = |first: u32| {
        let lines = (first..first + 4).map(|number| format!(" {number}: 0 0 PCI-MSI 1-edge aerdrv\n"));
        root.set("proc/interrupts", &("      CPU0 CPU1\n".to_owned() + &lines.collect::<String>()));
    };
    // Two that may be moved, one that the kernel keeps, and one that disturbs nobody.
    ports(50);
    for (number, cores, mode) in [(50, "0-3\n", 0o644), (51, "2-3\n", 0o644), (52, "2\n", 0o444), (53, "0\n", 0o644)] {
        set(number, cores, mode);
    }
    root.run("apply", &["--only", "irq", "--cores", "2-3"]);
    let cores = |first: u32| (first..first + 4).map(|number| root.read(&affinity(number))).collect::<String>();
    assert_eq!(cores(50), "0\n0\n2\n0\n");
    // Each now has the number of its neighbour.
    ports(51);
    for (number, cores, mode) in [(51, "0-3\n", 0o644), (52, "0-3\n", 0o644), (53, "2\n", 0o444), (54, "0,2\n", 0o644)]
    {
        set(number, cores, mode);
    }
    let script =
        root.read("usr/local/lib/ringgate/interrupts").replace("/proc/", &format!("{}/proc/", root.0.display()));
    good(Command::new("bash").args(["-c", &script]).output().unwrap());
    assert_eq!(cores(51), "0\n0\n2\n0,2\n");
    root.run("revert", &[]);
    assert_eq!(cores(51), "0-3\n2-3\n2\n0,2\n");
}

#[test]
fn kernel_manages_an_interrupt_then_it_is_not_placed_after_a_restart() {
    let root = Root::new(HOST);
    let path = "proc/irq/39/smp_affinity_list";
    root.set(path, "2\n");
    std::fs::set_permissions(root.0.join(path), PermissionsExt::from_mode(0o444)).unwrap();
    let apply = root.run("apply", &["--only", "irq"]);
    assert!(apply.contains("interrupt 39 (eth0-rx-1): on core 2\n"), "{apply}");
    let script = root.read("usr/local/lib/ringgate/interrupts");
    assert!(script.contains("\nplace eth0-rx-0 1 0\n") && !script.contains("eth0-rx-1"), "{script}");
}

#[test]
fn record_is_of_an_earlier_apply_then_it_is_put_back() {
    let root = Root::new(HOST);
    root.set("proc/irq/38/smp_affinity_list", "2\n");
    root.set("proc/irq/39/smp_affinity_list", "3\n");
    // With nothing but a number, and with the number that the name had.
    root.set("var/lib/ringgate/tuning.state", "irq\t38\t0-3\nirq\t50 eth0-rx-1\t0,2\nirq\t51\t0-3\n");
    let revert = root.run("revert", &[]);
    assert!(revert.contains("interrupt 51: is not there any more\n"), "{revert}");
    assert_eq!(root.read("proc/irq/38/smp_affinity_list"), "0-3\n");
    assert_eq!(root.read("proc/irq/39/smp_affinity_list"), "0,2\n");
}

#[test]
fn cores_are_too_few_then_both_interrupts_of_a_queue_share_one() {
    let root = Root::new(HOST);
    let names = ["input.0", "output.0", "input.1", "output.1", "input.2", "output.2"];
    let lines = (60..).zip(names).map(|(number, name)| format!(" {number}: 0 0 PCI 1 virtio2-{name}\n"));
    root.set("proc/interrupts", &("  CPU0 CPU1\n".to_owned() + &lines.collect::<String>()));
    for number in 60..66 {
        root.set(&format!("sys/class/net/eth1/device/msi_irqs/{number}"), "msix\n");
        root.set(&format!("proc/irq/{number}/smp_affinity_list"), "0-3\n");
    }
    root.run("apply", &["--only", "irq"]);
    let cores: Vec<String> =
        (60..66).map(|number| root.read(&format!("proc/irq/{number}/smp_affinity_list"))).collect();
    assert_eq!(cores.concat(), "0\n0\n2\n2\n3\n3\n");
}

#[test]
fn host_runs_irqbalance_or_lacks_settings_then_it_is_said() {
    let root = Root::new(&[("proc/77/comm", "irqbalance\n"), ("sys/devices/system/cpu/online", "0-1\n")]);
    let before = root.all();
    let output = root.command("plan", &[]).output().unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(good(output).contains("end it first (systemctl disable --now irqbalance)"));
    assert!(errors.contains("net.core.somaxconn: left alone"), "{errors}");
    root.run("apply", &[]);
    root.run("revert", &[]);
    assert_eq!(root.all(), before);
}

#[test]
fn file_may_not_be_written_then_the_plan_says_so() {
    let root = Root::new(HOST);
    let path = root.0.join("proc/sys/net/netfilter/nf_conntrack_max");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o444)).unwrap();
    let before = root.all();
    let plan = root.run("plan", &["--connections", "1000000"]);
    let line = "net.netfilter.nf_conntrack_max: stays 262144 instead of 1250000; it cannot be changed here (a full table of \
                tracked connections drops new ones)\n";
    assert!(plan.contains(line) && !plan.contains("nf_conntrack_max = "), "{plan}");
    let apply = root.command("apply", &["--connections", "1000000"]).output().unwrap();
    assert_eq!(apply.status.code(), Some(1));
    assert_eq!(String::from_utf8(apply.stdout).unwrap(), plan);
    let errors = String::from_utf8(apply.stderr).unwrap();
    assert_eq!(errors, "tuning/apply: this host refuses to change: net.netfilter.nf_conntrack_max\n");
    root.run("revert", &[]);
    assert_eq!(root.all(), before);
    // What is enough needs no change.
    let plan = root.run("plan", &["--connections", "1000"]);
    assert!(plan.contains("net.netfilter.nf_conntrack_max: 262144 is enough\n"), "{plan}");
}

#[test]
fn setting_is_refused_then_it_is_named_and_the_rest_is_done() {
    let root = Root::new(HOST);
    let path = root.0.join("proc/sys/net/core/somaxconn");
    std::fs::remove_file(&path).unwrap();
    // A small number that may be written, and that the kernel keeps small.
    symlink("/proc/sys/net/ipv4/tcp_tw_reuse", &path).unwrap();
    let before = root.all();
    let refused = root.command("apply", &["--connections", "1000000"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(errors, "tuning/apply: this host refuses to change: net.core.somaxconn\n");
    let fragment = root.read("etc/sysctl.d/90-ringgate.conf");
    assert!(fragment.contains("tcp_mem") && !fragment.contains("somaxconn"), "{fragment}");
    assert!(root.0.join("etc/security/limits.d/90-ringgate.conf").exists());
    root.run("revert", &[]);
    assert_eq!(root.all(), before);
}

#[test]
fn setting_could_not_be_put_back_then_it_stays_on_record() {
    let root = Root::new(HOST);
    let before = root.all();
    root.run("apply", &["--connections", "1000000"]);
    let (there, away) = (root.0.join("proc/sys/net/core"), root.0.join("away"));
    std::fs::rename(&there, &away).unwrap();
    let refused = root.command("revert", &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.starts_with("tuning/revert: cannot put back net.core.somaxconn\n"), "{errors}");
    assert!(root.read("var/lib/ringgate/tuning.state").contains("sysctl\tnet.core.somaxconn\t128\n"));
    std::fs::rename(&away, &there).unwrap();
    root.run("revert", &[]);
    assert_eq!(root.all(), before);
}

#[test]
fn option_is_wrong_then_nothing_changes() {
    let root = Root::new(HOST);
    let before = root.all();
    for wrong in [
        &["--connections", "many"][..],
        &["--connections", "0"],
        &["--connections"],
        &["--only", "everything"],
        &["--cores", "two"],
        &["--cores", "3-2"],
        &["--cores", "0,3-2"],
        &["--cores", "0,1"],
        &["--user", "a b"],
        &["--unit", "../../x.service"],
        &["--root", "/no/such/folder"],
        &["--nonsense"],
    ] {
        for name in ["plan", "apply", "revert"] {
            let output = root.command(name, wrong).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{name} {wrong:?}");
            assert!(String::from_utf8(output.stderr).unwrap().starts_with(&format!("tuning/{name}: ")), "{wrong:?}");
        }
    }
    assert_eq!(root.all(), before);
}

/// The real kernel: what is a setting of each network namespace is changed there, and put back.
#[test]
fn network_namespace_is_tuned_then_its_settings_change_and_come_back() {
    let root = Root::new(&[]);
    std::fs::create_dir_all(root.0.join("proc/sys")).unwrap();
    symlink("/proc/sys/net", root.0.join("proc/sys/net")).unwrap();
    let rounds = r#"
        set -euo pipefail
        cd /proc/sys/net
        keys=(core/somaxconn ipv4/tcp_max_syn_backlog ipv4/tcp_migrate_req ipv4/ip_local_port_range ipv4/tcp_tw_reuse)
        echo 100 >core/somaxconn
        echo 101 >ipv4/tcp_max_syn_backlog
        echo 0 >ipv4/tcp_migrate_req
        echo 40000 50000 >ipv4/ip_local_port_range
        echo 2 >ipv4/tcp_tw_reuse
        grep . "${keys[@]}"
        # The same connection tracking as always: enough for so few.
        options=(--root "$2" --only sysctl --connections 100 --load-test)
        "$1/apply" "${options[@]}" >&2
        "$1/apply" "${options[@]}" >&2
        grep . "${keys[@]}"
        "$1/revert" --root "$2" >&2
        grep . "${keys[@]}"
    "#;
    // Root makes a namespace as it is; others become root in one of users first.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new("unshare");
    command.args(if is_root { &["--net"][..] } else { &["--net", "--user", "--map-root-user"] });
    command.args(["bash", "-c", rounds, "bash"]).arg(script("")).arg(&root.0);
    let output = good(command.output().unwrap());
    let lines: Vec<String> = output.lines().map(|line| line.replace('\t', " ")).collect();
    let values = |values: [&str; 5]| {
        let keys = ["core/somaxconn", "ipv4/tcp_max_syn_backlog", "ipv4/tcp_migrate_req", "ipv4/ip_local_port_range"];
        let keys = keys.iter().chain(&["ipv4/tcp_tw_reuse"]);
        keys.zip(values).map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>()
    };
    let before = values(["100", "101", "0", "40000 50000", "2"]);
    assert_eq!(lines.len(), 15, "{lines:#?}");
    assert_eq!(lines[..5], before);
    assert_eq!(lines[5..10], values(["4096", "4096", "1", "10240 65535", "1"]));
    assert_eq!(lines[10..], before);
    assert!(!root.0.join("etc").exists() && !root.0.join("var").exists());
}

#[test]
fn script_is_asked_for_help_then_it_can_be_run_and_says_how() {
    for name in ["plan", "apply", "revert"] {
        let mode = std::fs::metadata(script(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name}");
        let help = good(Command::new(script(name)).arg("--help").output().unwrap());
        assert!(help.starts_with("usage: ") && help.contains("--cores LIST"), "{help}");
    }
}
