#!/bin/sh
# What rke-tools brings to every component's container: here it only becomes the component.
exec /usr/bin/python3 -I /usr/local/lib/component.py "$@"
