# Compares what a run has saved on this node with what is there now, and changes nothing. POSIX sh, tar, cmp, cksum, stat, find.
# `M` marker, `D` directory, `U` the run. A name that is not made of plain characters is nothing that RKE or certroll writes.
LC_ALL=C
export LC_ALL
frame() { printf '\n%s %s\n' "$M" "$*"; }

plain() {
  case $1 in
  '' | -* | /* | *..* | *[!A-Za-z0-9._/@+=,:-]*) return 1 ;;
  esac
}

# The certificates of a text and nothing else: somebody may have put a key beside them.
certificates() {
  inside=no
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in *'BEGIN CERTIFICATE'*) inside=yes ;; esac
    [ "$inside" = no ] || printf '%s\n' "$line"
    case $line in *'END CERTIFICATE'*) inside=no ;; esac
  done
}

# Whether a file has the ACL that was saved; where that cannot be told, it has.
as_acl() {
  [ -z "$acls" ] || grep -qxF -e "$(getfacl -cnps "$1" | tr '\n' ,) ./$1" "$acls"
}

if ! cd "$D"; then
  frame end
  exit 0
fi
for folder in .certroll/*; do
  run=${folder#.certroll/}
  if [ -d "$folder" ] && plain "$run"; then
    frame run "$run"
    [ ! -f "$folder/backup.tar" ] || echo backup
    find "$folder" -type f -exec stat -c '%s' {} +
  fi
done
backup=.certroll/$U/backup.tar
if [ -n "$U" ] && [ -f "$backup" ]; then
  frame archive
  frame disk
  find . -path ./.certroll -prune -o -type f -exec stat -c '%a %u %g %n' {} +
  frame sums
  find . -path ./.certroll -prune -o -type f -exec cksum {} +
  if [ -f ".certroll/$U/written" ]; then
    frame written
    cat ".certroll/$U/written"
  fi
  acls=.certroll/$U/backup.acls
  if [ -f "$acls" ] && getfacl --version >/dev/null 2>&1; then
    frame acls
  else
    acls=
  fi
  if [ -f ".certroll/$U/backup.index" ]; then
    frame index
    cat ".certroll/$U/backup.index"
    while IFS= read -r line; do
      path=${line#f * * * ./}
      [ "$path" != "$line" ] && plain "$path" || continue
      # To compare is cheap where the sizes differ, and never prints what a file holds.
      if [ -f "$path" ] && [ ! -L "$path" ] && tar -xOf "$backup" "./$path" 2>/dev/null | cmp -s - "$path" && as_acl "$path"; then
        frame same "$path"
        continue
      fi
      frame other "$path"
      case $path in
      *-key.pem) ;;
      *.pem) tar -xOf "$backup" "./$path" | certificates ;;
      esac
    done <".certroll/$U/backup.index"
  fi
fi
if [ -n "$U" ]; then
  for path in ".certroll/$U/retired"/*; do
    if [ -f "$path" ]; then
      frame retired "${path##*/}"
      case $path in *.crt) certificates <"$path" ;; esac
    fi
  done
  for path in ".certroll/$U"/full-cluster-state.json ".certroll/$U"/secret-*.json; do
    [ ! -f "$path" ] || frame object "$(stat -c '%Y' "$path")" "${path##*/}"
  done
fi
frame end
