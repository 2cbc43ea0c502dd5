# Unpacks one folder of a wheel. zipfile's extractall does not preserve which files are executable.
import os
import sys
import zipfile

wheel, folder, into = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for member in archive.infolist():
        if not member.filename.startswith(folder + "/") or member.is_dir():
            continue
        path = os.path.join(into, member.filename)
        if not os.path.abspath(path).startswith(os.path.abspath(into) + os.sep):
            sys.exit("a path that leads out of the wheel: " + member.filename)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with archive.open(member) as source, open(path, "wb") as copy:
            while block := source.read(1 << 20):
                copy.write(block)
        os.chmod(path, (member.external_attr >> 16) & 0o777 or 0o644)
