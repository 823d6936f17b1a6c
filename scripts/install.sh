#!/usr/bin/env bash
# Installs what `make build` built: library, header, pkg-config file and program.
#
#   scripts/install.sh RELEASE_DIR PREFIX LIBDIR [DESTDIR]
set -euo pipefail

release_dir=$1
prefix=$2
libdir=$3
destdir=${4:-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
real=libtfckpt.so.$version

install -d "$destdir$libdir/pkgconfig" "$destdir$prefix/include" "$destdir$prefix/bin"
install -m 755 "$release_dir/libtfckpt.so" "$destdir$libdir/$real"
ln -sf "$real" "$destdir$libdir/libtfckpt.so.${version%%.*}"
ln -sf "libtfckpt.so.${version%%.*}" "$destdir$libdir/libtfckpt.so"
install -m 644 "$release_dir/libtfckpt.a" "$destdir$libdir/libtfckpt.a"
install -m 644 include/tfckpt.h "$destdir$prefix/include/tfckpt.h"
install -m 755 "$release_dir/tfckpt" "$destdir$prefix/bin/tfckpt"
sed -e "s|@PREFIX@|$prefix|" -e "s|@LIBDIR@|$libdir|" -e "s|@VERSION@|$version|" tfckpt.pc.in \
    >"$destdir$libdir/pkgconfig/tfckpt.pc"
chmod 644 "$destdir$libdir/pkgconfig/tfckpt.pc"
echo "installed libtfckpt $version below $destdir$prefix"
if [[ -z $destdir ]]; then
    echo "if programs do not find it at run time: ldconfig, or LD_LIBRARY_PATH=$libdir"
fi
