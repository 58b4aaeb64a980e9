# What plan, apply and revert share: the options, each setting with its reason, and the record of what was there before.
# shellcheck shell=bash
#
# The state file holds one change a line, written before the change is made: kind, name and previous value, separated
# by tabs, of which the value may hold more. Applying again adds only what is not recorded yet, so that revert puts back
# the values from before the first time.

usage="usage: tuning/{plan,apply,revert} [--connections N] [--shards N] [--cores LIST] [--user NAME] [--unit NAME]
                                   [--load-test] [--only sysctl|limits|irq] [--root DIR]

  plan shows what apply would change, and why; apply changes it and records what was there before; revert puts exactly
  that back, and takes no notice of options but --root.

  --connections N  connections that the host is to hold (default 1000000)
  --shards N       shards of the gateway (default: one per core)
  --cores LIST     their cores, as in runtime.cores: 0,2-3. The queues of network cards go to these cores only, in that
                   order, and interrupts of other devices away from them (default: queues to all cores, others stay)
  --user NAME      whose limits are raised outside of systemd (default ringgate)
  --unit NAME      the systemd service that gets the limits (default ringgate.service)
  --load-test      more outgoing ports, for a host that makes the connections
  --only PART      sysctl, limits or irq
  --root DIR       act on the tree below DIR instead of this host"

source "$(dirname "${BASH_SOURCE[0]}")/interrupts.bash"

fail() {
    echo "tuning/$(basename "$0"): $*" >&2
    exit 1
}

is_number() {
    [[ $1 =~ ^[1-9][0-9]{0,9}$ ]]
}

parse_options() {
    connections=1000000 shards="" cores="" user=ringgate unit=ringgate.service load_test="" only="" root=""
    while [ $# -gt 0 ]; do
        case $1 in
        --load-test) load_test=yes ;;
        -h | --help)
            echo "$usage"
            exit 0
            ;;
        --connections | --shards | --cores | --user | --unit | --only | --root)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
            --connections) connections=$2 ;;
            --shards) shards=$2 ;;
            --cores) cores=$2 ;;
            --user) user=$2 ;;
            --unit) unit=$2 ;;
            --only) only=$2 ;;
            --root) root=${2%/} ;;
            esac
            shift
            ;;
        *) fail "$1 is not an option"$'\n'"$usage" ;;
        esac
        shift
    done
    is_number "$connections" || fail "--connections $connections is not a number above 0"
    [ -z "$shards" ] || is_number "$shards" || fail "--shards $shards is not a number above 0"
    [[ $only =~ ^(|sysctl|limits|irq)$ ]] || fail "--only $only is not sysctl, limits or irq"
    [[ $user =~ ^[A-Za-z0-9_.*@-]+$ ]] || fail "--user $user is not a name"
    [[ $unit =~ ^[A-Za-z0-9_.@-]+\.service$ ]] || fail "--unit $unit is not the name of a service"
    [ -z "$root" ] || [ -d "$root" ] || fail "--root $root is not a folder"
    [ -z "$cores" ] || must_be_online
    [ -n "$shards" ] || shards=$(nproc)
    state=$root/var/lib/ringgate/tuning.state
}

must_be_online() {
    local part parts cpu online
    [[ $cores =~ ^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$ ]] ||
        fail "--cores $cores is not a list like 0,2-3"
    IFS=, read -r -a parts <<<"$cores"
    for part in "${parts[@]}"; do
        [ "${part%-*}" -le "${part#*-}" ] || fail "--cores $cores: $part ends before it begins"
    done
    online=" $(online_cpus | paste -sd ' ') "
    for cpu in $(expand "$cores"); do
        [[ $online == *" $cpu "* ]] || fail "--cores $cores: there is no core $cpu"
    done
}

must_be_allowed() {
    [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "changing this host takes root; tuning/plan does not"
}

# walk_settings show|change: every setting, in the order in which one makes room for the next.
walk_settings() {
    local mode=$1 refused=""
    if wants sysctl; then sysctl_settings; fi
    if wants limits; then limit_settings; fi
    if wants irq; then interrupt_settings; fi
    [ -z "$refused" ] || fail "this host refuses to change:$refused"
}

wants() {
    [ -z "$only" ] || [ "$only" = "$1" ]
}

## Settings

# The kernel deals connections out to shards unevenly, so their tables together are larger than the number of
# connections; those of a gateway that nobody has configured hold 16384 each; and there are other files than sockets.
# `ringgate doctor` (src/doctor/limits.rs) wants the same figure.
open_files() {
    local uneven=$((connections + connections / 8 + 100 * shards)) unconfigured=$((16384 * shards))
    echo $(((uneven > unconfigured ? uneven : unconfigured) + 10000))
}

sysctl_settings() {
    local fragment="" pages
    at_least fs.nr_open $((($(open_files) + 1048575) / 1048576 * 1048576)) \
        "the limit of open files cannot be raised beyond it"
    at_least fs.file-max $((connections + 10000)) "every socket is a file of the kernel"
    at_least net.core.somaxconn 4096 "connections that wait for accept; the gateway asks for 4096"
    at_least net.ipv4.tcp_max_syn_backlog 4096 "handshakes under way"
    at_least net.ipv4.tcp_migrate_req 1 "a listener that closes hands its waiting connections to another one of the port"
    at_least net.netfilter.nf_conntrack_max $((connections + connections / 4)) \
        "a full table of tracked connections drops new ones"
    pages=$(tcp_pages)
    [ -z "$pages" ] || at_least net.ipv4.tcp_mem "$((pages * 3 / 4)) $pages $((pages * 2))" \
        "a page for each socket that holds something; beyond the middle figure the kernel economises" 1
    if [ -n "$load_test" ]; then
        set_exactly net.ipv4.ip_local_port_range "10240 65535" "ports for outgoing connections, above the gateway's"
        set_exactly net.ipv4.tcp_tw_reuse 1 "a port can be used again at once after an outgoing connection"
    fi
    [ -z "$fragment" ] || fragment=$'# Written by ringgate\'s tuning/apply; tuning/revert removes it.\n'"$fragment"
    write_file /etc/sysctl.d/90-ringgate.conf "$fragment" "the same after a restart"
}

limit_settings() {
    # Not less than anything that counts today: rings of the load tester are larger than those of a shard.
    local open locked=$(((shards > 64 ? shards : 64) * 1024 * 1024))
    open=$(open_files)
    local head=$'# Written by ringgate\'s tuning/apply; tuning/revert removes it.\n'
    write_file /etc/security/limits.d/90-ringgate.conf "$head$user soft nofile $open
$user hard nofile $open
$user soft memlock $((locked / 1024))
$user hard memlock $((locked / 1024))
" "open files and locked memory of $user, from its next login on"
    write_file "/etc/systemd/system/$unit.d/90-tuning.conf" "${head}[Service]
LimitNOFILE=$open
LimitMEMLOCK=$locked
" "the same for the service, from its next start on"
}

# One page for each connection, and at most a quarter of the memory.
tcp_pages() {
    local total
    total=$(awk '$1 == "MemTotal:" { print int($2 / 4 / 4) }' "$root/proc/meminfo" 2>/dev/null) || return 0
    [ -n "$total" ] || return 0
    echo $((connections < total ? connections : total))
}

## One setting

# at_least KEY VALUE WHY [INDEX]: raises a setting whose (INDEX-th) number is smaller; never lowers one.
at_least() {
    local key=$1 value=$2 why=$3 index=${4:-0} first numbers wanted
    first=$(first_value "$key") || return 0
    read -r -a numbers <<<"$first"
    read -r -a wanted <<<"$value"
    # bash counts in 64 bits with a sign, and so does the kernel's largest file-max.
    if [ "${numbers[index]}" -ge "${wanted[index]}" ]; then
        echo "$key: $(spaced "$first") is enough"
    else
        set_to "$key" "$first" "$value" "$why"
    fi
}

set_exactly() {
    local key=$1 value=$2 why=$3 first
    first=$(first_value "$key") || return 0
    if [ "$(spaced "$first")" = "$value" ]; then
        echo "$key: is $value"
    else
        set_to "$key" "$first" "$value" "$why"
    fi
}

set_to() {
    local key=$1 first=$2 value=$3 why=$4 path now mark=""
    path=$root/proc/sys/${key//.//}
    # An earlier apply may have set it, for this target or for another one.
    now=$(spaced "$(<"$path")")
    if [ "$now" = "$value" ]; then
        echo "$key: is as it should be"
    elif is_read_only "$path"; then
        echo "$key: stays $now instead of $value; it cannot be changed here ($why)"
        [ "$mode" = show ] || refused+=" $key"
        return
    else
        echo "$key: $now -> $value ($why)"
        if ! change sysctl "$key" "$first" "$value" "$path"; then
            refused+=" $key"
            return
        fi
    fi
    # What belongs to a module may not be there yet when the fragment is read: the mark makes that no error.
    [[ $key != net.netfilter.* ]] || mark=-
    fragment+="$mark$key = $value"$'\n'
}

# Whether nobody may write a setting: so the kernel marks what a namespace cannot change. That all of /proc/sys is mounted
# read-only is shown to root alone; to others every setting looks like that.
is_read_only() {
    is_marked_read_only "$1" || { [ "$(id -u)" -eq 0 ] && [ ! -w "$1" ]; }
}

is_marked_read_only() {
    [[ $(stat -L -c %A "$1") != *w* ]]
}

# change KIND NAME BEFORE VALUE PATH: writes a value, and what was there before on record; where plan only shows, neither.
# Fails, and leaves no record, where the kernel refuses it.
change() {
    [ "$mode" = change ] || return 0
    record "$1" "$2" "$3"
    write "$4" "$5" || { forget "$1" "$2"; return 1; }
}

# write VALUE PATH: the kernel says no by an error of the write.
write() {
    { printf '%s\n' "$1" >"$2"; } 2>/dev/null
}

# The value before any change of ours, or a line that says why there is none.
first_value() {
    local key=$1 path
    path=$root/proc/sys/${key//.//}
    if [ ! -r "$path" ]; then
        echo "$key: left alone; this host, or this namespace, does not have it" >&2
        return 1
    fi
    recorded sysctl "$key" || echo "$(<"$path")"
}

# write_file PATH TEXT WHY: a file of ours; without TEXT there is nothing to say in it.
write_file() {
    local path=$1 text=$2 why=$3
    [ -n "$text" ] || return 0
    if [ -f "$root$path" ] && cmp -s "$root$path" <(printf '%s' "$text"); then
        echo "$path: is as it should be"
        return
    fi
    echo "$path: written ($why)"
    sed 's/^/    /' <<<"${text%$'\n'}"
    [ "$mode" = change ] || return 0
    make_folders folder "$(dirname "$path")"
    if [ -f "$root$path" ]; then
        record file "$path" "$(base64 -w 0 <"$root$path")"
    else
        record file "$path" -
    fi
    printf '%s' "$text" >"$root$path"
}

# link_file PATH TARGET WHY: a symbolic link of ours. Only a link can be put back, so anything else keeps its place.
link_file() {
    local path=$1 target=$2 why=$3 now
    if [ -e "$root$path" ] && [ ! -L "$root$path" ]; then
        echo "$path: left alone; what is there is no link"
        return
    fi
    now=$(readlink "$root$path") || now=-
    if [ "$now" = "$target" ]; then
        echo "$path: is as it should be"
        return
    fi
    echo "$path: a link to $target ($why)"
    [ "$mode" = change ] || return 0
    make_folders folder "$(dirname "$path")"
    record link "$path" "$now"
    ln -sfn "$target" "$root$path"
}

# make_folders KIND PATH: makes and records what is missing of it, from the top down.
make_folders() {
    [ ! -d "$root$2" ] || return 0
    make_folders "$1" "$(dirname "$2")"
    mkdir "$root$2"
    record "$1" "$2" -
}

## The record

# The folders of the record itself are known by a kind of their own: they can go only after it.
open_state() {
    local folder missing=()
    for folder in /var /var/lib /var/lib/ringgate; do
        [ -d "$root$folder" ] || missing+=("$folder")
    done
    mkdir -p "$(dirname "$state")"
    for folder in "${missing[@]}"; do
        record home "$folder" -
    done
}

# recorded KIND NAME: the previous value, if there is a record.
recorded() {
    [ -f "$state" ] || return 1
    awk -v start="$1"$'\t'"$2"$'\t' '
        index($0, start) == 1 { print substr($0, length(start) + 1); found = 1; exit }
        END { exit !found }' "$state"
}

record() {
    recorded "$1" "$2" >/dev/null || printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$state"
}

# Only ever the newest line.
forget() {
    if [ "$(tail -n 1 "$state" | cut -f 1,2)" = "$1"$'\t'"$2" ]; then
        sed -i '$d' "$state"
    fi
}

spaced() {
    local words
    read -r -a words <<<"$1"
    echo "${words[*]}"
}

# systemd reads drop-ins when it is told to.
reload_units() {
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
}
