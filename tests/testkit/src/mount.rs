//! Small file systems that become full or read-only.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use super::folder::temporary;
use super::process::bash;
use super::skip::{is_root, skip};

/// A mounted file system, unmounted on drop.
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs with those options at `path`; `None`, with a message, if the machine does not allow it.
    pub fn new(path: &Path, options: &str) -> Option<Mount> {
        Mount::by(path, &format!("mount -t tmpfs -o {options} tmpfs '{}'", path.display()))
    }

    /// An ext4 of 64 MiB in the file `image`. It becomes read-only when it meets an error, as on a failing disk.
    pub fn ext4(path: &Path, image: &Path) -> Option<Mount> {
        let (path_text, image) = (path.display(), image.display());
        let make = format!("[ -e '{image}' ] || {{ truncate -s 64M '{image}' && mkfs.ext4 -q '{image}'; }}");
        Mount::by(path, &format!("{{ {make}; }} && mount -o loop,errors=remount-ro '{image}' '{path_text}'"))
    }

    fn by(path: &Path, command: &str) -> Option<Mount> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        std::fs::create_dir_all(path).unwrap();
        let script = format!("{{ {command}; }} 2>&1 && echo mounted || true");
        let said = if is_root() { bash(&script) } else { "not root".to_owned() };
        if said.trim() == "mounted" {
            return Some(Mount(path.to_owned()));
        }
        skip(&format!("a disk of its own cannot be mounted: {}", said.trim()));
        None
    }

    /// Makes an ext4 report an error: from now on it is read-only. Returns whether this kernel supports that.
    pub fn fail(&self) -> bool {
        let path = self.0.display();
        let script = format!(
            "device=$(findmnt -no SOURCE '{path}') && echo 1 > /sys/fs/ext4/${{device#/dev/}}/trigger_fs_error \
             && ! touch '{path}/probe' 2>/dev/null && echo failed || true"
        );
        let failed = bash(&script).trim() == "failed";
        if !failed {
            skip("this kernel does not let a file system fail");
        }
        failed
    }

    /// Unmounts it immediately: no process may use it any more.
    pub fn unmount(self) {
        bash(&format!("umount '{}'", self.0.display()));
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

/// The unmount is lazy: a node that the test leaves running ends only after this.
fn detach(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
}

/// Unmounts the remains of killed tests. Folders of tests are named after their process.
fn sweep() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let Ok(rest) = Path::new(path).strip_prefix(temporary()) else { continue };
        let process = rest.to_str().unwrap_or_default().split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            detach(Path::new(path));
        }
    }
}
