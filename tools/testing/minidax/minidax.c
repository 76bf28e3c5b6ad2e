// SPDX-License-Identifier: GPL-2.0
/*
 * minidax: the least that a file system with DAX must do.
 *
 * It shows what is left to the file system once dirty tracking of mapped persistent
 * memory and its write back are in generic code: to say where a file's blocks are,
 * to take the usual locks around faults and truncation, and to pass a flush on to the
 * device.  There is no ->writepages and no ->dirty_folio here, nothing that knows
 * which pages are dirty, and still what is stored to a mapping is durable when a sync
 * call returns.
 *
 * It is a test, not a file system for anybody's data: one directory, few files, of
 * at most a few MiB each.  Owner, mode and times of a file are not kept.
 *
 * The first block of the device holds all metadata, struct minidax_table.  Each slot
 * of the table is a file, or free, and has an extent of fixed place and size.
 * Metadata is durable before an operation returns, so that MAP_SYNC needs nothing.
 *
 * Blocks beyond the end of a file have any content: they are zeroed, durably, before
 * the file grows over them.
 *
 *	mount -t minidax [-o mkfs] DEVICE DIR
 *
 * With mkfs the device is formatted first.
 *
 * Locks, outermost first: i_rwsem, invalidate_lock, minidax_info.lock.  Names are
 * protected by i_rwsem of the directory.
 */
#include <linux/blkdev.h>
#include <linux/buffer_head.h>
#include <linux/dax.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/huge_mm.h>
#include <linux/iomap.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/splice.h>

#define MINIDAX_MAGIC	0x786164696e696dULL	/* "minidax" */
#define MINIDAX_SLOTS	63
#define MINIDAX_NAME	48	/* with the NUL at its end */
#define MINIDAX_ALIGN	SZ_2M	/* of extents, for PMD mappings */
#define MINIDAX_ROOT	1	/* inode number; those of files are above it */

struct minidax_slot {
	__le64 size;
	__le32 used;
	__le32 reserved;
	char name[MINIDAX_NAME];
};

struct minidax_table {
	__le64 magic;
	__le64 extent_size;
	__le32 nr_slots;
	__le32 reserved[11];
	struct minidax_slot slot[MINIDAX_SLOTS];
};

/**
 * struct minidax_info - a mounted file system
 * @dax_dev: the memory of the device
 * @part_off: where a partition begins on it
 * @mkfs: mount option
 * @nr_slots: in the table
 * @extent_size: of each slot, in bytes
 * @busy: slots of files, and of unlinked files that are still open
 * @lock: for sizes in @table, and to write it
 * @table: as it is on the device
 */
struct minidax_info {
	struct dax_device *dax_dev;
	u64 part_off;
	bool mkfs;
	unsigned int nr_slots;
	u64 extent_size;
	DECLARE_BITMAP(busy, MINIDAX_SLOTS);
	struct mutex lock;	/* of sizes in the table, and to write it */
	struct minidax_table table;
};

static struct minidax_info *minidax_info(const struct super_block *sb)
{
	return sb->s_fs_info;
}

static unsigned int minidax_slot_nr(const struct inode *inode)
{
	return inode->i_ino - MINIDAX_ROOT - 1;
}

/*
 * Make the table durable, and before that what it refers to.  A crash in between may
 * leave any of its words old: that must be harmless.
 *
 * Called with the lock held, or by mount.
 */
static int minidax_commit(struct super_block *sb)
{
	struct minidax_info *info = minidax_info(sb);
	struct buffer_head *bh = sb_getblk(sb, 0);
	int err = 0;

	if (!bh)
		return -ENOMEM;
	lock_buffer(bh);
	memcpy(bh->b_data, &info->table, sizeof(info->table));
	set_buffer_uptodate(bh);
	bh_submit(bh, REQ_OP_WRITE | REQ_SYNC | REQ_META | REQ_PREFLUSH | REQ_FUA,
		  bh_end_write);
	wait_on_buffer(bh);
	if (!buffer_uptodate(bh))
		err = -EIO;
	brelse(bh);
	return err;
}

static int minidax_commit_size(struct inode *inode, loff_t size)
{
	struct minidax_info *info = minidax_info(inode->i_sb);
	struct minidax_slot *slot = &info->table.slot[minidax_slot_nr(inode)];
	__le64 old;
	int err;

	mutex_lock(&info->lock);
	old = slot->size;
	slot->size = cpu_to_le64(size);
	err = minidax_commit(inode->i_sb);
	if (err)
		slot->size = old;
	mutex_unlock(&info->lock);
	return err;
}

static int minidax_commit_used(struct super_block *sb, struct minidax_slot *slot, u32 used)
{
	struct minidax_info *info = minidax_info(sb);
	__le32 old;
	int err;

	mutex_lock(&info->lock);
	old = slot->used;
	slot->used = cpu_to_le32(used);
	err = minidax_commit(sb);
	if (err)
		slot->used = old;
	mutex_unlock(&info->lock);
	return err;
}

/* ---- files ---- */

static int minidax_iomap_begin(struct inode *inode, loff_t pos, loff_t length,
			       unsigned int flags, struct iomap *iomap,
			       struct iomap *srcmap)
{
	struct minidax_info *info = minidax_info(inode->i_sb);

	/* Reads may ask for more than a file can have */
	if (pos >= info->extent_size) {
		iomap->type = IOMAP_HOLE;
		iomap->addr = IOMAP_NULL_ADDR;
		iomap->offset = pos;
		iomap->length = length;
		return 0;
	}

	iomap->type = IOMAP_MAPPED;
	iomap->bdev = inode->i_sb->s_bdev;
	iomap->dax_dev = info->dax_dev;
	iomap->offset = 0;
	iomap->length = info->extent_size;
	iomap->addr = info->part_off + MINIDAX_ALIGN +
		      minidax_slot_nr(inode) * info->extent_size;
	return 0;
}

static DEFINE_IOMAP_ITER_NEXT(minidax_iomap_next, minidax_iomap_begin);

static const struct iomap_ops minidax_iomap_ops = {
	.iomap_next	= minidax_iomap_next,
};

/* Zero what is between the end of the file and that of the page of @size */
static int minidax_zero_new(struct inode *inode, loff_t size)
{
	loff_t old = i_size_read(inode);

	return dax_zero_range(inode, old, PAGE_ALIGN(size) - old, NULL,
			      &minidax_iomap_ops);
}

static ssize_t minidax_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t ret;

	inode_lock_shared(inode);
	ret = dax_iomap_rw(iocb, to, &minidax_iomap_ops);
	inode_unlock_shared(inode);

	file_accessed(iocb->ki_filp);
	return ret;
}

static ssize_t minidax_write_locked(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	loff_t size = i_size_read(inode);
	ssize_t ret, err;

	ret = generic_write_checks(iocb, from);
	if (ret <= 0)
		return ret;
	err = kiocb_modified(iocb);
	if (err)
		return err;

	if (iocb->ki_pos + ret > size) {
		err = minidax_zero_new(inode, iocb->ki_pos + ret);
		if (err)
			return err;
	}

	ret = dax_iomap_rw(iocb, from, &minidax_iomap_ops);
	if (ret > 0 && iocb->ki_pos > size) {
		err = minidax_commit_size(inode, iocb->ki_pos);
		if (err)
			return err;
		i_size_write(inode, iocb->ki_pos);
	}
	return ret;
}

static ssize_t minidax_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t ret;

	inode_lock(inode);
	ret = minidax_write_locked(iocb, from);
	inode_unlock(inode);

	if (ret > 0)
		ret = generic_write_sync(iocb, ret);
	return ret;
}

static vm_fault_t minidax_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct address_space *mapping = vmf->vma->vm_file->f_mapping;
	struct super_block *sb = mapping->host->i_sb;
	bool write = (vmf->flags & FAULT_FLAG_WRITE) && (vmf->vma->vm_flags & VM_SHARED);
	vm_fault_t ret;

	if (write) {
		sb_start_pagefault(sb);
		file_update_time(vmf->vma->vm_file);
	}
	filemap_invalidate_lock_shared(mapping);
	/* No pfn is asked for: blocks are there, so no fault is synchronous */
	ret = dax_iomap_fault(vmf, order, NULL, NULL, &minidax_iomap_ops);
	filemap_invalidate_unlock_shared(mapping);
	if (write)
		sb_end_pagefault(sb);
	return ret;
}

static vm_fault_t minidax_fault(struct vm_fault *vmf)
{
	return minidax_huge_fault(vmf, 0);
}

static const struct vm_operations_struct minidax_vm_ops = {
	.fault		= minidax_fault,
	.huge_fault	= minidax_huge_fault,
	.page_mkwrite	= minidax_fault,
	.pfn_mkwrite	= minidax_fault,
};

static int minidax_mmap_prepare(struct vm_area_desc *desc)
{
	struct inode *inode = file_inode(desc->file);

	if (!daxdev_mapping_supported(desc, inode, minidax_info(inode->i_sb)->dax_dev))
		return -EOPNOTSUPP;

	file_accessed(desc->file);
	desc->vm_ops = &minidax_vm_ops;
	vma_desc_set_flags(desc, VMA_HUGEPAGE_BIT);
	return 0;
}

/* Let faults go on while waiting for whoever has pinned a page */
static void minidax_wait_pinned(struct inode *inode)
{
	filemap_invalidate_unlock(inode->i_mapping);
	schedule();
	filemap_invalidate_lock(inode->i_mapping);
}

/* Called with the inode and its invalidate_lock held */
static int minidax_resize(struct inode *inode, loff_t size)
{
	int err;

	if (size > i_size_read(inode)) {
		err = minidax_zero_new(inode, size);
		if (!err)
			err = minidax_commit_size(inode, size);
		if (!err)
			i_size_write(inode, size);
		return err;
	}

	err = dax_break_layout(inode, 0, LLONG_MAX, minidax_wait_pinned);
	if (err)
		return err;
	truncate_setsize(inode, size);
	err = minidax_commit_size(inode, size);
	if (err)
		return err;
	/* For who has mapped the last page; it is done again when the file grows */
	return dax_truncate_page(inode, size, NULL, &minidax_iomap_ops);
}

static int minidax_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
			   struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int err;

	err = setattr_prepare(idmap, dentry, attr);
	if (err)
		return err;

	if (attr->ia_valid & (ATTR_UID | ATTR_GID | ATTR_MODE))
		return -EPERM;
	if (attr->ia_valid & ATTR_SIZE && attr->ia_size != i_size_read(inode)) {
		filemap_invalidate_lock(inode->i_mapping);
		err = minidax_resize(inode, attr->ia_size);
		filemap_invalidate_unlock(inode->i_mapping);
		if (err)
			return err;
	}
	setattr_copy(idmap, inode, attr);
	return 0;
}

/* All blocks of a file are there from the beginning: only its size may change */
static long minidax_fallocate(struct file *file, int mode, loff_t pos, loff_t len)
{
	struct inode *inode = file_inode(file);
	loff_t end = pos + len;
	int err;

	if (mode & ~FALLOC_FL_KEEP_SIZE)
		return -EOPNOTSUPP;

	inode_lock(inode);
	err = inode_newsize_ok(inode, end);
	if (!err && !(mode & FALLOC_FL_KEEP_SIZE) && end > i_size_read(inode)) {
		err = file_modified(file);
		if (!err) {
			filemap_invalidate_lock(inode->i_mapping);
			err = minidax_resize(inode, end);
			filemap_invalidate_unlock(inode->i_mapping);
		}
	}
	inode_unlock(inode);
	return err;
}

static const struct file_operations minidax_file_ops = {
	.owner			= THIS_MODULE,
	.fop_flags		= FOP_MMAP_SYNC,
	.llseek			= generic_file_llseek,
	.read_iter		= minidax_read_iter,
	.write_iter		= minidax_write_iter,
	.splice_read		= copy_splice_read,
	.splice_write		= iter_file_splice_write,
	.mmap_prepare		= minidax_mmap_prepare,
	.get_unmapped_area	= thp_get_unmapped_area,
	.fsync			= simple_fsync,
	.fallocate		= minidax_fallocate,
};

static const struct inode_operations minidax_file_inode_ops = {
	.setattr	= minidax_setattr,
};

#ifdef MINIDAX_BASE
/* folio_mark_dirty() of v7.3 calls ->dirty_folio() without looking if there is one */
static const struct address_space_operations minidax_aops = {
	.dirty_folio	= noop_dirty_folio,
};
#endif

/* ---- the directory ---- */

/* The inode of a slot; its address space has no operations but the default ones */
static struct inode *minidax_iget(struct super_block *sb, unsigned int nr)
{
	struct minidax_info *info = minidax_info(sb);
	struct inode *inode = iget_locked(sb, MINIDAX_ROOT + 1 + nr);

	if (!inode)
		return ERR_PTR(-ENOMEM);
	if (!(inode_state_read_once(inode) & I_NEW))
		return inode;

	inode->i_mode = S_IFREG | 0600;
	inode->i_op = &minidax_file_inode_ops;
	inode->i_fop = &minidax_file_ops;
#ifdef MINIDAX_BASE
	inode->i_mapping->a_ops = &minidax_aops;
#endif
	inode_set_flags(inode, S_DAX, S_DAX);
	i_size_write(inode, le64_to_cpu(info->table.slot[nr].size));
	inode->i_blocks = info->extent_size >> SECTOR_SHIFT;
	simple_inode_init_ts(inode);
	unlock_new_inode(inode);
	return inode;
}

static struct dentry *minidax_lookup(struct inode *dir, struct dentry *dentry,
				     unsigned int flags)
{
	struct minidax_info *info = minidax_info(dir->i_sb);
	struct inode *inode = NULL;

	if (dentry->d_name.len >= MINIDAX_NAME)
		return ERR_PTR(-ENAMETOOLONG);

	for (unsigned int i = 0; i < info->nr_slots; i++) {
		if (info->table.slot[i].used &&
		    !strcmp(info->table.slot[i].name, dentry->d_name.name)) {
			inode = minidax_iget(dir->i_sb, i);
			break;
		}
	}
	return d_splice_alias(inode, dentry);
}

static int minidax_create(struct mnt_idmap *idmap, struct inode *dir,
			  struct dentry *dentry, umode_t mode)
{
	struct super_block *sb = dir->i_sb;
	struct minidax_info *info = minidax_info(sb);
	unsigned int nr = find_first_zero_bit(info->busy, info->nr_slots);
	struct minidax_slot *slot = &info->table.slot[nr];
	struct inode *inode;
	int err;

	if (nr >= info->nr_slots)
		return -ENOSPC;

	/* An inode that is being evicted has let go of the slot: iget waits for it */
	slot->size = 0;
	strscpy_pad(slot->name, dentry->d_name.name);
	inode = minidax_iget(sb, nr);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	set_bit(nr, info->busy);

	/* The name must be there before it counts */
	err = minidax_commit_used(sb, slot, 0);
	if (!err)
		err = minidax_commit_used(sb, slot, 1);
	if (err) {
		clear_nlink(inode);
		iput(inode);
		return err;
	}
	inode_set_mtime_to_ts(dir, inode_set_ctime_current(dir));
	d_instantiate(dentry, inode);
	return 0;
}

static int minidax_unlink(struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	struct minidax_info *info = minidax_info(dir->i_sb);
	struct minidax_slot *slot = &info->table.slot[minidax_slot_nr(inode)];
	int err;

	err = minidax_commit_used(dir->i_sb, slot, 0);
	if (err)
		return err;
	inode_set_mtime_to_ts(dir, inode_set_ctime_current(dir));
	inode_set_ctime_current(inode);
	drop_nlink(inode);
	return 0;
}

static int minidax_readdir(struct file *file, struct dir_context *ctx)
{
	struct minidax_info *info = minidax_info(file_inode(file)->i_sb);

	if (!dir_emit_dots(file, ctx))
		return 0;
	for (; ctx->pos - 2 < info->nr_slots; ctx->pos++) {
		unsigned int nr = ctx->pos - 2;
		const struct minidax_slot *slot = &info->table.slot[nr];

		if (slot->used && !dir_emit(ctx, slot->name, strlen(slot->name),
					    MINIDAX_ROOT + 1 + nr, DT_REG))
			break;
	}
	return 0;
}

static const struct inode_operations minidax_dir_inode_ops = {
	.lookup		= minidax_lookup,
	.create		= minidax_create,
	.unlink		= minidax_unlink,
};

static const struct file_operations minidax_dir_ops = {
	.owner		= THIS_MODULE,
	.llseek		= generic_file_llseek,
	.read		= generic_read_dir,
	.iterate_shared	= minidax_readdir,
	.fsync		= simple_fsync,
};

/* ---- the file system ---- */

static void minidax_evict_inode(struct inode *inode)
{
#ifdef MINIDAX_BREAKS_LAYOUT
	dax_break_layout_final(inode);
#endif
	truncate_inode_pages_final(inode->i_mapping);
	clear_inode(inode);
	if (!inode->i_nlink)
		clear_bit(minidax_slot_nr(inode), minidax_info(inode->i_sb)->busy);
}

static int minidax_sync_fs(struct super_block *sb, int wait)
{
	return wait ? blkdev_issue_flush(sb->s_bdev) : 0;
}

/* There is one so that FIFREEZE is allowed: all has been synced */
static int minidax_freeze_fs(struct super_block *sb)
{
	return 0;
}

static const struct super_operations minidax_super_ops = {
	.evict_inode	= minidax_evict_inode,
	.sync_fs	= minidax_sync_fs,
	.freeze_fs	= minidax_freeze_fs,
	.statfs		= simple_statfs,
};

static int minidax_mkfs(struct super_block *sb)
{
	struct minidax_table *table = &minidax_info(sb)->table;
	u64 size = bdev_nr_bytes(sb->s_bdev), extent;

	if (sb_rdonly(sb))
		return -EROFS;
	if (size < 2 * MINIDAX_ALIGN)
		return -ENOSPC;
	/* At least 4 MiB, for tests that need two PMDs */
	extent = max(round_down(size / (MINIDAX_SLOTS + 1), MINIDAX_ALIGN),
		     2 * MINIDAX_ALIGN);
	table->magic = cpu_to_le64(MINIDAX_MAGIC);
	table->extent_size = cpu_to_le64(extent);
	table->nr_slots = cpu_to_le32(min_t(u64, MINIDAX_SLOTS,
					    div64_u64(size - MINIDAX_ALIGN, extent)));
	return minidax_commit(sb);
}

static int minidax_read_table(struct super_block *sb)
{
	struct minidax_info *info = minidax_info(sb);
	const struct minidax_table *table = &info->table;
	struct buffer_head *bh = sb_bread(sb, 0);

	if (!bh)
		return -EIO;
	memcpy(&info->table, bh->b_data, sizeof(info->table));
	brelse(bh);

	info->nr_slots = le32_to_cpu(table->nr_slots);
	info->extent_size = le64_to_cpu(table->extent_size);
	if (le64_to_cpu(table->magic) != MINIDAX_MAGIC ||
	    !info->nr_slots || info->nr_slots > MINIDAX_SLOTS ||
	    !IS_ALIGNED(info->extent_size, MINIDAX_ALIGN) ||
	    info->extent_size > MAX_LFS_FILESIZE / (MINIDAX_SLOTS + 1) ||
	    MINIDAX_ALIGN + info->nr_slots * info->extent_size > bdev_nr_bytes(sb->s_bdev))
		return -EINVAL;

	for (unsigned int i = 0; i < info->nr_slots; i++) {
		const struct minidax_slot *slot = &table->slot[i];

		if (!slot->used)
			continue;
		if (le64_to_cpu(slot->size) > info->extent_size ||
		    strnlen(slot->name, MINIDAX_NAME) == MINIDAX_NAME)
			return -EINVAL;
		set_bit(i, info->busy);
	}
	return 0;
}

static int minidax_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct minidax_info *info = minidax_info(sb);
	struct inode *root;
	int err;

	BUILD_BUG_ON(sizeof(struct minidax_table) > PAGE_SIZE);

	if (!sb_set_blocksize(sb, PAGE_SIZE))
		return -EINVAL;
	info->dax_dev = fs_dax_get_by_bdev(sb->s_bdev, &info->part_off, NULL, NULL);
	if (!info->dax_dev)
		return invalf(fc, "device has no DAX");
	err = info->mkfs ? minidax_mkfs(sb) : 0;
	if (!err)
		err = minidax_read_table(sb);
	if (err)
		return err;

	sb->s_op = &minidax_super_ops;
	sb->s_magic = MINIDAX_MAGIC;
	sb->s_maxbytes = info->extent_size;
	sb->s_time_gran = 1;

	root = new_inode(sb);
	if (!root)
		return -ENOMEM;
	root->i_ino = MINIDAX_ROOT;
	root->i_mode = S_IFDIR | 0700;
	root->i_op = &minidax_dir_inode_ops;
	root->i_fop = &minidax_dir_ops;
	set_nlink(root, 2);
	simple_inode_init_ts(root);
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

static int minidax_get_tree(struct fs_context *fc)
{
	return get_tree_bdev(fc, minidax_fill_super);
}

static int minidax_reconfigure(struct fs_context *fc)
{
	return sync_filesystem(fc->root->d_sb);
}

static const struct fs_parameter_spec minidax_parameters[] = {
	fsparam_flag("mkfs", 0),
	{}
};

static int minidax_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct minidax_info *info = fc->s_fs_info;
	struct fs_parse_result result;
	int opt = fs_parse(fc, minidax_parameters, param, &result);

	if (opt < 0)
		return opt;
	info->mkfs = true;
	return 0;
}

static void minidax_free_fc(struct fs_context *fc)
{
	kfree(fc->s_fs_info);
}

static const struct fs_context_operations minidax_context_ops = {
	.free		= minidax_free_fc,
	.parse_param	= minidax_parse_param,
	.get_tree	= minidax_get_tree,
	.reconfigure	= minidax_reconfigure,
};

static int minidax_init_fs_context(struct fs_context *fc)
{
	struct minidax_info *info = kzalloc_obj(*info);

	if (!info)
		return -ENOMEM;
	mutex_init(&info->lock);
	fc->s_fs_info = info;
	fc->ops = &minidax_context_ops;
	return 0;
}

static void minidax_kill_sb(struct super_block *sb)
{
	struct minidax_info *info = minidax_info(sb);

	kill_block_super(sb);
	fs_put_dax(info->dax_dev, NULL);
	kfree(info);
}

static struct file_system_type minidax_type = {
	.owner			= THIS_MODULE,
	.name			= "minidax",
	.init_fs_context	= minidax_init_fs_context,
	.parameters		= minidax_parameters,
	.kill_sb		= minidax_kill_sb,
	.fs_flags		= FS_REQUIRES_DEV,
};

static int __init minidax_init(void)
{
	return register_filesystem(&minidax_type);
}
module_init(minidax_init);

static void __exit minidax_exit(void)
{
	unregister_filesystem(&minidax_type);
}
module_exit(minidax_exit);

MODULE_ALIAS_FS("minidax");
MODULE_DESCRIPTION("The least that a file system with DAX must do");
MODULE_LICENSE("GPL");
