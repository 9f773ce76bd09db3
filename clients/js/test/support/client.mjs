/** The client as FANFARE_CLIENT says: its modules, or `dist/fanfare.min.js`, which `npm run build` makes of them. */

const { Fanfare } = await import(new URL(`../../${process.env.FANFARE_CLIENT ?? 'index.js'}`, import.meta.url));

export { Fanfare };
