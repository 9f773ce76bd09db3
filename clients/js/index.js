export { Fanfare } from './src/client.js';
export { FanfareError } from './src/error.js';
