# shellcheck shell=bash disable=SC2154 # names come from base.sh
# The images: tars with static busybox, a program and its libraries, imported under RKE's names. No registry is asked.

# put_program ROOT FILE [TARGET]: a program or library, with the libraries it is linked against.
put_program() {
  local root=$1 file=$2 library
  install -D "$file" "$root${3:-$file}"
  for library in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do
    [[ -e $root$library ]] || install -D "$library" "$root$library"
  done
}

put_busybox() {
  mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,usr/local/bin,usr/local/lib,etc,proc,sys,dev,tmp,run,var}
  install /bin/busybox "$1/bin/busybox"
  chroot "$1" /bin/busybox --install -s
  ln -sf busybox "$1/bin/bash"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
}

put_python() {
  local extension python
  python=$(readlink -f /usr/bin/python3)
  put_program "$1" "$python" /usr/bin/python3
  mkdir -p "$1/usr/lib"
  tar -C /usr/lib -cf - --exclude='config-3*' --exclude=test --exclude=idlelib --exclude=lib2to3 --exclude=ensurepip \
    --exclude=tkinter --exclude=pydoc_data "${python##*/}" | tar -C "$1/usr/lib" -xf -
  for extension in /usr/lib/"${python##*/}"/lib-dynload/_{ssl,hashlib,ctypes,asyncio,json}.*.so; do [[ ! -e $extension ]] || put_program "$1" "$extension"; done
}

make_images() {
  local folder=$state/images
  mkdir -p "$folder"
  put_busybox "$folder/etcd"
  put_program "$folder/etcd" /usr/bin/etcd /usr/local/bin/etcd
  put_program "$folder/etcd" /usr/bin/etcdctl /usr/local/bin/etcdctl
  put_busybox "$folder/rke-tools"
  install -D "$real/image/entrypoint.sh" "$folder/rke-tools/opt/rke-tools/entrypoint.sh"
  put_python "$folder/rke-tools"
  install -D "$real/image/nginx-proxy" "$folder/rke-tools/usr/bin/nginx-proxy"
  install -D "$real/image/cert-deployer" "$folder/rke-tools/usr/bin/cert-deployer"
  put_busybox "$folder/hyperkube"
  put_python "$folder/hyperkube"
  put_program "$folder/hyperkube" /usr/bin/openssl
  install -D -m 644 -t "$folder/hyperkube/usr/local/lib" "$real"/image/*.py
  local name
  for name in etcd rke-tools hyperkube; do
    tar -C "$folder/$name" -cf "$folder/$name.tar" .
    rm -rf "${folder:?}/$name"
  done
}

import_images() {
  on "$1" docker import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' - "$etcd_image" <"$state/images/etcd.tar"
  on "$1" docker import --change 'CMD ["/bin/bash"]' --change 'VOLUME /opt/rke-tools' - "$rke_tools_image" <"$state/images/rke-tools.tar"
  on "$1" docker import - "$hyperkube_image" <"$state/images/hyperkube.tar"
} >/dev/null
